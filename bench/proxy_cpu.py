#!/usr/bin/env python3
"""CPU time of gateway and sidecar, per request and per streamed chunk, read from the kernel's accounting of the two processes.
bench/proxy_cpu.py [--requests 200]    Two loads through a P/D stack: answers in one piece, and answers of 101 streamed chunks; their
difference over 100 chunks is the price of a chunk."""
import argparse, concurrent.futures, os, pathlib, sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/e2e"))
import harness
from harness import Stack, request


def cpu_ms(pid):
    """User and system time of a process, from the scheduler's own nanosecond clock."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        total += int(open(f"/proc/{pid}/task/{task}/schedstat").read().split()[0])
    return total / 1e6


def load(port, n, body, connections=8):
    with concurrent.futures.ThreadPoolExecutor(connections) as pool:
        for status, _, _ in pool.map(lambda i: request(port, "POST", "/v1/completions", {**body, "prompt": f"{i} {body['prompt']}"}), range(n)):
            assert status == 200


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bin", default=str(ROOT / "build/release/bin"))
    p.add_argument("--model", default=str(ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    p.add_argument("--requests", type=int, default=200)
    a = p.parse_args()
    harness.BIN, harness.MODEL = os.path.realpath(a.bin), os.path.realpath(a.model)
    prompt = "A short prompt of about forty tokens. " * 4
    loads = {"one piece": {"prompt": prompt, "max_tokens": 1, "temperature": 0},
             "101 chunks": {"prompt": prompt, "max_tokens": 101, "ignore_eos": True, "stream": True, "temperature": 0}}
    with Stack(1, 1) as s:
        pids = {name: s.children()[name][0] for name in ("router", "sidecar-0")}
        got = {}
        print(f"{a.requests} requests over 8 new connections each, CPU ms per request (new TCP connection included)")
        print(f"{'load':>11} " + " ".join(f"{n:>10}" for n in pids))
        for name, body in loads.items():
            load(s.port, 20, body)
            before = {n: cpu_ms(pid) for n, pid in pids.items()}
            load(s.port, a.requests, body)
            got[name] = {n: (cpu_ms(pid) - before[n]) / a.requests for n, pid in pids.items()}
            print(f"{name:>11} " + " ".join(f"{v:>10.3f}" for v in got[name].values()))
        per_chunk = {n: (got["101 chunks"][n] - got["one piece"][n]) * 10 for n in pids}
        print(f"{'us a chunk':>11} " + " ".join(f"{v:>10.2f}" for v in per_chunk.values()))


if __name__ == "__main__":
    main()
