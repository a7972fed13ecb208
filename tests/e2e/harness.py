"""Starts real stacks for tests: `baton up` on free ports, its workers' addresses, their metrics, and their ends."""
import http.client, json, os, re, signal, socket, subprocess, tempfile, time, urllib.parse

BIN = MODEL = None  # set by run.py


class Stack:
    """with Stack(prefill=1, decode=1) as s: s.url, s.workers["decode-0"].pid ..."""

    def __init__(self, prefill=1, decode=1, args=(), engine_args=(), model=None):
        self.state = tempfile.mkdtemp(prefix="baton-e2e-")
        self.command = [f"{BIN}/baton", "up", "--prefill", str(prefill), "--decode", str(decode), "--model", model or MODEL, "--port", "0",
                        "--state-dir", self.state, *args, *[f"--engine-arg={a}" for a in engine_args]]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            m = re.search(r"stack ready: (http://\S+)", line)
            if m:
                break
        else:
            raise RuntimeError("the stack did not start:\n" + "".join(lines))
        self.url = m.group(1)
        self.port = urllib.parse.urlparse(self.url).port
        self.dir = f"{self.state}/{self.port}"
        self.endpoints = {e["name"]: e for e in json.load(open(f"{self.dir}/endpoints.json"))["endpoints"]}
        return self

    def __exit__(self, *exc):
        self.process.send_signal(signal.SIGTERM)
        try:
            rest, _ = self.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        if self.process.returncode != 0:
            raise RuntimeError(f"baton up ended with {self.process.returncode}:\n{rest}")
        if exc[0] is not None:
            for name in sorted(os.listdir(self.dir)):
                if name.endswith(".log"):
                    tail = open(f"{self.dir}/{name}", errors="replace").read().splitlines()[-25:]
                    print(f"--- {name}\n" + "\n".join(tail))

    def children(self):
        """{worker name: (pid, argv)} of the processes that run now."""
        found = []
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            try:
                stat = open(f"/proc/{pid}/stat").read()
                argv = open(f"/proc/{pid}/cmdline").read().split("\0")
            except OSError:
                continue
            if int(stat.rsplit(")", 1)[1].split()[1]) == self.process.pid and os.path.basename(argv[0]).startswith("baton-"):
                found.append((pid, argv))
        # Endpoints have the port of the engine, or of the sidecar before it; the sidecar's flags say which engine is behind.
        name_of = {str(e["port"]): name for name, e in self.endpoints.items()}
        program = lambda argv: os.path.basename(argv[0])
        out = {}
        for pid, argv in found:
            if program(argv) == "baton-sidecar":
                name = name_of[flag_of(argv, "--port")]
                name_of[flag_of(argv, "--model-server-port")] = name
                out[name.replace("decode", "sidecar")] = (pid, argv)
        for pid, argv in found:
            if program(argv) == "baton-router":
                out["router"] = (pid, argv)
            elif program(argv) == "baton-engine" and flag_of(argv, "--port") in name_of:
                out[name_of[flag_of(argv, "--port")]] = (pid, argv)
        return out

    def engine_port(self, name):
        argv = self.children()[name][1]
        return int(flag_of(argv, "--port"))

    def kill(self, name, number=signal.SIGKILL):
        os.kill(self.children()[name][0], number)

    def wait_ready(self, name, timeout=30):
        """The engine answers and the gateway knows it."""
        up = lambda: total(self.port, "baton_gateway_endpoint_up", f':{self.endpoints[name]["port"]}"') == 1
        wait_for(lambda: name in self.children() and get(self.engine_port(name), "/health")[0] == 200 and up(), timeout, f"{name} to be ready")


def flag_of(argv, flag):
    return argv[argv.index(flag) + 1]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(condition, timeout, what):
    end = time.monotonic() + timeout
    while True:
        try:
            if condition():
                return
        except (OSError, http.client.HTTPException, KeyError, ValueError, StopIteration):
            pass
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout} s in vain for {what}")
        time.sleep(0.02)


def request(port, method, path, body=None, headers=None, timeout=120):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        data = json.dumps(body) if isinstance(body, (dict, list)) else body
        c.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        r = c.getresponse()
        return r.status, dict((k.lower(), v) for k, v in r.getheaders()), r.read()
    finally:
        c.close()


def get(port, path):
    status, _, body = request(port, "GET", path, timeout=10)
    return status, body


def post(port, path, body, **kw):
    status, headers, data = request(port, "POST", path, body, **kw)
    return status, headers, json.loads(data) if data else None


def metrics(port):
    """{name: {labels text: value}}"""
    out = {}
    for line in get(port, "/metrics")[1].decode().splitlines():
        m = re.match(r"([a-zA-Z_:][\w:]*)(\{.*\})? (\S+)$", line)
        if m:
            out.setdefault(m.group(1), {})[m.group(2) or ""] = float(m.group(3))
    return out


def total(port, name, label=""):
    """The sum over the series of one metric. Tests ask this many times a second: only its own lines are read."""
    out = 0.0
    for line in ("\n" + get(port, "/metrics")[1].decode()).split("\n" + name)[1:]:
        m = re.match(r"(\{.*\})? (\S+)", line)
        if m and label in (m.group(1) or ""):
            out += float(m.group(2))
    return out


def complete(port, prompt, max_tokens=16, headers=None, **extra):
    status, head, body = post(port, "/v1/completions", {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, **extra}, headers=headers)
    assert status == 200, (status, body)
    return body["choices"][0]["text"]
