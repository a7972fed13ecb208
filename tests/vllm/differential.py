#!/usr/bin/env python3
"""baton-engine against vLLM, request by request: tests/vllm/differential.py --bin DIR --model GGUF

Starts both with the same model (float32 there, the file's BF16 weights here), sends both the table of requests_table.py, and compares what a client, a
dashboard or a script can see: status, content type and other headers, the JSON keys and their types at every depth, errors, finish reasons, usage, the
order and the fields of a stream's events, the words of greedy answers. Any difference that accepted.py does not name with its reason fails.

--vllm PORT and --ours PORT (--vllm-pooling, --ours-pooling) take servers that run already; --answers FILE remembers what vLLM said, so that the next run asks it nothing; --only REGEX takes
some cases; --show prints both answers of what differs."""
import argparse, base64, collections, concurrent.futures, contextlib, http.client, json, os, re, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [HERE, f"{HERE}/../e2e"]
import accepted, environment, requests_table, server_table
from compare import compare
from environment import HOME, free_port, say
from harness import get, wait_for
from requests_table import MODEL

COMMON = ["--host", "127.0.0.1", "--served-model-name", MODEL, "--max-model-len", "2048", "--enable-tokenizer-info-endpoint"]
GENERATING = [*COMMON, "--enable-scale-out", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
POOLING = [*COMMON, "--runner", "pooling"]
Answer = collections.namedtuple("Answer", "status headers body")


def ask(port, case):
    _, path, body, options = case
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=900)
    try:
        data = options.get("raw", None if body is None else json.dumps(body).encode())
        method = options.get("method", "GET" if data is None else "POST")
        headers = {"Content-Type": "application/json", **options.get("headers", {})}
        c.request(method, path, data, {k: v for k, v in headers.items() if v})
        r = c.getresponse()
        return Answer(r.status, {k.lower(): v for k, v in r.getheaders()}, r.read())
    finally:
        c.close()


class Servers:
    """with Servers(args, model, folder for logs) as s: s.vllm and s.ours are ports"""

    def __init__(self, a, model, folder, common, vllm, ours):
        self.commands, self.processes, self.folder = {}, {}, folder
        self.vllm, self.ours = vllm or free_port(), ours or free_port()
        if not vllm:
            self.commands["vllm"] = ([f"{HOME}/venv/bin/vllm", "serve", model, *common, "--port", str(self.vllm), "--dtype", "float32", "--enforce-eager"],
                                     {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": str(os.cpu_count() - 1), "HF_HUB_OFFLINE": "1", "PATH": f"{HOME}/venv/bin:{os.environ['PATH']}"})
        if not ours:
            self.commands["ours"] = ([f"{a.bin}/baton-engine", "serve", model, *common, "--port", str(self.ours), "--kv-cache-memory-bytes", str(512 << 20)], {})

    def __enter__(self):
        with contextlib.ExitStack() as undo:  # one that does not start takes the other with it
            undo.callback(self.__exit__)
            for name, (argv, env) in self.commands.items():
                log = open(f"{self.folder}/{name}.log", "w")
                self.processes[name] = subprocess.Popen(argv, stdout=log, stderr=log, env={**os.environ, "VLLM_SERVER_DEV_MODE": "1", **env})
            for name, port in (("vllm", self.vllm), ("ours", self.ours)):
                process = self.processes.get(name)
                wait_for(lambda: (process and process.poll() is not None) or get(port, "/health")[0] == 200, 900, name)
                if process and process.poll() is not None:
                    sys.exit(f"error: {name} ended:\n" + open(f"{self.folder}/{name}.log").read()[-3000:])
            undo.pop_all()
        return self

    def __exit__(self, *_):
        for p in self.processes.values():
            p.terminate()
        for p in self.processes.values():
            try:
                p.wait(60)
            except subprocess.TimeoutExpired:
                p.kill()


class Verdict:
    """Collects differences; what accepted.py names is counted, the rest printed."""

    def __init__(self, show):
        self.show, self.cases, self.taken, self.bad = show, 0, collections.Counter(), []

    def add(self, name, differences, *answers):
        self.cases += 1
        left = []
        for d in differences:
            row = accepted.find(name, d)
            if row is None:
                left.append(d)
            else:
                self.taken[row] += 1
        if not left:
            return
        self.bad.append((name, left))
        print(f"DIFFERS {name}\n" + "\n".join(f"    {d}" for d in left), flush=True)
        if self.show:
            for who, answer in zip(("vllm", "ours"), answers):
                print(f"  {who}: {answer.status} {answer.body[:1500].decode(errors='replace')}", flush=True)

    def finish(self, whole):
        for row in accepted.ROWS:
            if whole and row not in self.taken:
                print(f"    note: accepted.py names a difference that was none: {row[0]!r}, {row[1]!r}")
        say(f"{self.cases} cases: {self.cases - len(self.bad)} alike, {sum(self.taken.values())} differences accepted for {len(self.taken)} reasons, {sum(len(d) for _, d in self.bad)} not")
        return not self.bad


class Remembered:
    """vLLM's answers by case, in a file or nowhere."""

    def __init__(self, path):
        self.path = path
        self.known = {k: Answer(s, h, base64.b64decode(b)) for k, (s, h, b) in json.load(open(path)).items()} if path and os.path.exists(path) else {}

    def ask(self, port, case):
        key = repr(case)
        if key not in self.known or not self.path:
            self.known[key] = ask(port, case)
        return self.known[key]

    def keep(self):
        if self.path:
            json.dump({k: (a.status, a.headers, base64.b64encode(a.body).decode()) for k, a in self.known.items()}, open(self.path, "w"))


def run_table(servers, table, verdict, only, remembered):
    chosen = [case for case in table if not only or re.search(only, case[0])]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for case in chosen:
            theirs, ours = pool.submit(remembered.ask, servers.vllm, case), pool.submit(ask, servers.ours, case)
            verdict.add(case[0], compare(case, theirs.result(), ours.result()), theirs.result(), ours.result())
            remembered.keep()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bin", required=True)
    p.add_argument("--model", required=True)
    for name in ("vllm", "ours", "vllm-pooling", "ours-pooling"):
        p.add_argument("--" + name, type=int)
    p.add_argument("--answers")
    p.add_argument("--only")
    p.add_argument("--show", action="store_true")
    a = p.parse_args()
    a.bin = os.path.realpath(a.bin)
    environment.vllm()
    model, verdict, remembered = environment.model(os.path.realpath(a.model)), Verdict(a.show), Remembered(a.answers)
    with tempfile.TemporaryDirectory(prefix="baton-differential-") as folder:
        with Servers(a, model, folder, GENERATING, a.vllm, a.ours) as s:
            run_table(s, requests_table.generator() + server_table.about_the_server(), verdict, a.only, remembered)
        with Servers(a, model, folder, POOLING, a.vllm_pooling, a.ours_pooling) as s:
            run_table(s, server_table.embeddings(), verdict, a.only, remembered)
    if not verdict.finish(not a.only):
        sys.exit("error: baton-engine and vLLM differ")


if __name__ == "__main__":
    main()
