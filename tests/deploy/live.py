"""The names of every metric that the programs really export: a small stack on this machine, one request through it, /metrics of each."""
import json, os, re, socket, subprocess, tempfile, time, urllib.error, urllib.request


KUBECONFIG = """apiVersion: v1
kind: Config
current-context: c
contexts: [{{name: c, context: {{cluster: c, user: u, namespace: n}}}}]
clusters: [{{name: c, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: u, user: {{}}}}]
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def get(url, body=None, timeout=60):
    request = urllib.request.Request(url, data=body and json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as r:
        return r.read().decode()


def families(text):
    """Metric names as queries write them."""
    out = set()
    for name, kind in re.findall(r"(?m)^# TYPE (\S+) (\w+)", text):
        out |= {name + s for s in {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count", "")}.get(kind, ("",))}
    return out


def labels(text):
    """name -> the labels of its samples."""
    out = {}
    for name, inside in re.findall(r"(?m)^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ", text):
        out.setdefault(name, set()).update(re.findall(r'(\w+)="', inside))
    return out


def exported(bin_folder, model, patience=180):
    """(names of families, labels by name)."""
    ports = [free_port() for _ in range(10)]
    prefill, decode, kv_p, kv_d, sidecar, sidecar_metrics, http, grpc, admin, ratio = ports
    health = free_port()
    running = []
    with tempfile.TemporaryDirectory() as folder:
        endpoints = f"{folder}/endpoints.json"
        with open(endpoints, "w") as f:
            json.dump({"endpoints": [{"name": n, "address": "127.0.0.1", "port": str(p), "labels": {"llm-d.ai/role": n}} for n, p in (("prefill", prefill), ("decode", sidecar))]}, f)

        def start(program, *args):
            log = open(f"{folder}/{len(running)}.log", "w")
            running.append((subprocess.Popen([f"{bin_folder}/{program}", *map(str, args)], stdout=log, stderr=subprocess.STDOUT), log))

        def wait(url):
            for _ in range(patience * 5):
                assert all(p.poll() is None for p, _ in running), [open(l.name).read()[-800:] for p, l in running if p.poll() is not None]
                try:
                    return get(url, timeout=2)
                except OSError:
                    time.sleep(0.2)
            raise TimeoutError(url)

        try:
            for port, kv, peer in ((prefill, kv_p, kv_d), (decode, kv_d, kv_p)):
                start("baton-engine", "serve", model, "--host", "127.0.0.1", "--port", port, "--served-model-name", "m", "--kv-transfer-port", kv, "--kv-peers", f"127.0.0.1:{peer}",
                      "--threads", 1, "--kv-cache-memory-bytes", 64 << 20, "--max-model-len", 512)
            start("baton-sidecar", "--host", "127.0.0.1", "--port", sidecar, "--model-server-port", decode, "--metrics-port", sidecar_metrics, "--secure-proxy=false")
            start("baton-router", "--host", "127.0.0.1", "--grpc-host", "127.0.0.1", "--http-port", http, "--grpc-port", grpc, "--grpc-health-port", health, "--metrics-port", admin, "--endpoints", endpoints, "--pool-name", "p",
                  "--propose-role-flips", "--drain-timeout", "1s")
            # It shows what it has to say also while no API server answers.
            with open(f"{folder}/kubeconfig", "w") as f:
                f.write(KUBECONFIG.format(port=free_port()))
            start("baton", "deploy", "ratio", "--kubeconfig", f"{folder}/kubeconfig", "--prefill", "p", "--prefill-max", 2, "--decode", "d", "--decode-max", 2, "--prefill-cost", "0,1000,0", "--decode-cost", "10000,1000,0",
                  "--host", "127.0.0.1", "--port", ratio)
            for port in (prefill, decode, sidecar):
                wait(f"http://127.0.0.1:{port}/health")
            wait(f"http://127.0.0.1:{http}/v1/models")
            wait(f"http://127.0.0.1:{ratio}/metrics")
            answered = 0
            for i in range(patience):  # until the router knows both and a prompt went over both
                try:
                    get(f"http://127.0.0.1:{http}/v1/completions", {"model": "m", "prompt": f"{i} times: how are you today? " * 8, "max_tokens": 4}, 120)
                    answered += 1
                except urllib.error.HTTPError as e:
                    assert e.code == 503, e  # no worker is known yet
                # not after the first one: what is counted of a request may be counted after its answer
                if answered > 1 and "pd_prefill_status_total" in get(f"http://127.0.0.1:{sidecar_metrics}/metrics"):
                    break
                time.sleep(0.2)
            everything = "\n".join(get(f"http://127.0.0.1:{port}/metrics") for port in (decode, prefill, sidecar_metrics, admin, http, ratio))
            return families(everything), labels(everything)
        finally:
            for p, _ in running:
                p.terminate()
            for p, log in running:
                try:
                    p.wait(60)
                except subprocess.TimeoutExpired:
                    p.kill()
                    p.wait()
                log.close()
