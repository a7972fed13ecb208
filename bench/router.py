#!/usr/bin/env python3
"""What picking costs behind a real Envoy: CPU ms per request of Envoy and of baton-router, from the kernel's accounting of the two.
bench/router.py [--seconds 5] [--repeat 3] [--only small,stream,large,rate,saturation] [--against BIN]
Engines cost nothing (bench/router_backend.cc); Envoy is configured as our users' gateways are. Loads: 1.4 KB chat answered in one piece; 0.5 KB chat, 100 streamed chunks;
a 450 KB prompt; 500 requests a second of about 200/100 tokens, open loop; and as many small ones as go through. Medians. --against: the folder of another
baton-router, which gets an Envoy of its own and every other run of the first three loads."""
import argparse, contextlib, json, os, pathlib, re, statistics, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/e2e"))
import harness
from envoy_proxy import Backend, Envoy, Router, endpoint
from harness import metrics, wait_for

# Go endpoint picker of llm-d on this kind of machine, Envoy and picker (facts sheet "peers"); targets of ours.
PEERS = {"small": (0.34, 0.55, 0.07), "stream": (0.57, 1.06, 0.2), "large": (2.3, 15.9, 1.6)}

LUA = """local f = io.open("%s", "rb")
wrk.method, wrk.body = "POST", f:read("*a")
wrk.headers["Content-Type"] = "application/json"
local fixed, n = wrk.body, 0
function request() n = n + 1; return wrk.format("POST", "/v1/chat/completions", nil, (fixed:gsub("NUMBER__", string.format("%%08d", n), 1))) end
"""


def body(size, stream):
    head = json.dumps({"model": "m", "messages": [{"role": "system", "content": "You are of help."}, {"role": "user", "content": "NUMBER__ TEXT"}],
                       "max_tokens": 100, "stream": stream}, separators=(",", ":"))
    words = "the quick brown fox jumps over the lazy dog and looks for something to eat ".split()
    text = " ".join(words[(i * 7919 + i // 13) % len(words)] for i in range(size // 4))
    return head.replace("TEXT", text[:max(1, size - len(head))])


def wrk(port, size, stream, connections, seconds):
    folder = tempfile.mkdtemp(prefix="baton-bench-")
    open(f"{folder}/body", "w").write(body(size, stream))
    open(f"{folder}/load.lua", "w").write(LUA % f"{folder}/body")
    out = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", f"{folder}/load.lua", f"http://127.0.0.1:{port}"],
                         capture_output=True, text=True).stdout
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)", out)
    assert not bad, out
    return int(re.search(r"(\d+) requests in", out)[1]), float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])


def cost(envoy, router, seconds, size, stream, connections):
    """(Envoy ms, router ms, requests/s) per request."""
    before = envoy.cpu_ms(), router.cpu_ms()
    done, rate = wrk(envoy.port, size, stream, connections, seconds)
    return (envoy.cpu_ms() - before[0]) / done, (router.cpu_ms() - before[1]) / done, rate


def median_rows(rows):
    return [statistics.median(column) for column in zip(*rows)]


def open_loop(bin_dir, port, rate, seconds, stream_words):
    """TTFT P50, P95 and whole time P50, P95 (ms) of `rate` requests a second."""
    folder = tempfile.mkdtemp(prefix="baton-bench-")
    with open(f"{folder}/prompts.jsonl", "w") as f:
        for i in range(1000):
            f.write(json.dumps({"prompt": f"{i} " + "word " * stream_words, "output_len": 100}) + "\n")
    subprocess.run([f"{bin_dir}/baton", "bench", "--base-url", f"http://127.0.0.1:{port}", "--model", "m", "--dataset-name", "custom", "--dataset-path",
                    f"{folder}/prompts.jsonl", "--num-prompts", str(int(rate * seconds)), "--request-rate", str(rate), "--percentile-metrics",
                    "ttft,e2el", "--metric-percentiles", "50,95,99", "--save-result", "--result-dir", folder, "--result-filename", "r.json",
                    "--disable-tqdm"], check=True, capture_output=True)
    r = json.load(open(f"{folder}/r.json"))
    return r["p50_ttft_ms"], r["p95_ttft_ms"], r["p50_e2el_ms"], r["p95_e2el_ms"], r["completed"]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bin", default=str(ROOT / "build/release/bin"))
    p.add_argument("--seconds", type=int, default=5)
    p.add_argument("--repeat", type=int, default=3)
    p.add_argument("--threads", type=int, default=1, help="of Envoy and of the router, each")
    p.add_argument("--only", default="small,stream,large,rate,saturation")
    p.add_argument("--endpoints", type=int, default=4, help="decode workers behind it")
    p.add_argument("--config", help="an EndpointPickerConfig; without: the built-in default")
    p.add_argument("--against", help="folder with another baton-router, compared in alternating runs")
    p.add_argument("--plaintext", action="store_true", help="no TLS between Envoy and the picker")
    a = p.parse_args()
    harness.BIN = os.path.realpath(a.bin)
    only = a.only.split(",")
    print(f"load average {os.getloadavg()[0]:.1f} before, {os.cpu_count()} cores; medians of {a.repeat} runs of {a.seconds} s")
    args = ["--grpc-threads", str(a.threads)] + (["--config-file", a.config] if a.config else []) + (["--secure-serving=false"] if a.plaintext else [])
    backends = []
    try:
        for _ in range(a.endpoints):
            backends.append(Backend(harness.BIN).__enter__())
        pool = [endpoint(f"decode-{i}", b.port, "decode") for i, b in enumerate(backends)]
        with contextlib.ExitStack() as stack:
            pairs = []
            for folder in [harness.BIN] + ([os.path.realpath(a.against)] if a.against else []):
                router = stack.enter_context(Router(folder, pool, args))
                envoy = stack.enter_context(Envoy(router.port, threads=a.threads, tls=not a.plaintext))
                wait_for(lambda: sum(metrics(router.metrics_port)["llm_d_epp_ready_endpoints"].values()) == len(pool), 20, "the pool")
                wrk(envoy.port, 1400, False, 16, 1)
                pairs.append((envoy, router))
            envoy, router = pairs[0]
            idle = router.cpu_ms()
            time.sleep(2)
            idle = (router.cpu_ms() - idle) / 2000
            print(f"idle, {len(pool)} endpoints scraped every 50 ms: {idle:.3f} of a core (not taken off below)")
            print(f"{'CPU ms per request':>20} {'Envoy':>8} {'router':>8} {'req/s':>8}   theirs: Envoy, Go EPP; ours over theirs; target")
            for name, size, stream, connections in (("small", 1400, False, 16), ("stream", 500, True, 64), ("large", 450_000, False, 16)):
                if name not in only:
                    continue
                rows = [[cost(*pair, a.seconds, size, stream, connections) for pair in pairs] for _ in range(a.repeat)]
                e, r, rate = median_rows([row[0] for row in rows])
                te, tr, target = PEERS[name]
                print(f"{name:>20} {e:8.3f} {r:8.3f} {rate:8.0f}   {te:.2f} {tr:.2f}; {r / tr:.2f}; {target} {'met' if r <= target else 'MISSED'}")
                if a.against:
                    e, other, rate = median_rows([row[1] for row in rows])
                    ratio = statistics.median(row[0][1] / row[1][1] for row in rows)
                    print(f"{'the other':>20} {e:8.3f} {other:8.3f} {rate:8.0f}   this over the other, run by run: {ratio:.3f}")
            if "rate" in only:
                rows = median_rows([open_loop(harness.BIN, envoy.port, 500, a.seconds, 160) for _ in range(a.repeat)])
                with Envoy(router.port, threads=a.threads, direct=backends[0].port) as plain:
                    base = median_rows([open_loop(harness.BIN, plain.port, 500, a.seconds, 160) for _ in range(a.repeat)])
                print(f"500 req/s of 200/100 tokens, ms: first token P50 {rows[0]:.2f} P95 {rows[1]:.2f}; without a picker {base[0]:.2f} {base[1]:.2f}; "
                      f"added {rows[0] - base[0]:.2f} {rows[1] - base[1]:.2f} (targets 0.5, 2)")
            if "saturation" in only:
                before = router.cpu_ms()
                done, rate = wrk(envoy.port, 1400, False, 128, a.seconds)
                share = (router.cpu_ms() - before) / (a.seconds * 1000)
                print(f"saturation, small, 128 connections: {rate:.0f} req/s with {share:.2f} of a core in the router: one core would do {rate / share:.0f}")
    finally:
        for b in backends:
            b.__exit__(None, None, None)
    print(f"load average {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
