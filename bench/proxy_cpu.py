#!/usr/bin/env python3
"""CPU time of gateway and sidecar, per request and per streamed chunk, read from the kernel's accounting of the two processes.
bench/proxy_cpu.py [--requests 200]    Two loads through a P/D stack of real engines: answers in one piece, and answers of 101 streamed
chunks; their difference over 100 chunks is the price of a chunk.
bench/proxy_cpu.py --costless [--seconds 3 --repeat 3]    Gateway and sidecar before engines that cost nothing (bench/router_backend.cc), kept connections, P/D:
the loads and the yardstick of bench/router.py, which has Envoy, llm-d's picker and its sidecar for the same."""
import argparse, concurrent.futures, os, pathlib, socket, statistics, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests/e2e"), str(ROOT / "bench")]
import harness
from harness import Stack, request, wait_for


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


# Envoy, Go picker and Go sidecar together, ms of CPU a P/D request (facts sheet "peers"); ours are to need a fifth.
THEIRS = {"small": 1.42, "stream": 2.95, "large": 24.6}


def costless(a):
    from envoy_proxy import Backend, Process, Sidecar, endpoint
    from router import wrk
    from test_envoy import PD_CONFIG

    class Gateway(Process):
        def started(self):
            wait_for(lambda: request(self.port, "GET", "/health")[0] == 200, 20, "the gateway")

    with Backend(harness.BIN) as decode, Backend(harness.BIN) as prefill, Sidecar(harness.BIN, decode.port) as sidecar, \
            tempfile.TemporaryDirectory() as folder:
        pool = [endpoint("d", sidecar.port, "decode"), endpoint("p", prefill.port, "prefill")]
        pathlib.Path(f"{folder}/endpoints.json").write_text(str({"endpoints": pool}).replace("'", '"'))
        pathlib.Path(f"{folder}/config.yaml").write_text(PD_CONFIG)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        gateway = Gateway([f"{harness.BIN}/baton-router", "--http-port", str(port), "--host", "127.0.0.1", "--endpoints", f"{folder}/endpoints.json",
                           "--config-file", f"{folder}/config.yaml", "--log-level", "info"], "gateway")
        gateway.port = port
        with gateway:
            print(f"{'CPU ms a request':>17} {'gateway':>8} {'sidecar':>8} {'both':>8} {'req/s':>7}   theirs; ours over theirs (aim 0.2)")
            for name, size, stream, connections in (("small", 1400, False, 16), ("stream", 500, True, 64), ("large", 450_000, False, 16)):
                wrk(port, size, stream, connections, 1)
                rows = []
                for _ in range(a.repeat):
                    before = gateway.cpu_ms(), sidecar.cpu_ms()
                    done, rate = wrk(port, size, stream, connections, a.seconds)
                    rows.append(((gateway.cpu_ms() - before[0]) / done, (sidecar.cpu_ms() - before[1]) / done, rate))
                g, s, rate = (statistics.median(column) for column in zip(*rows))
                print(f"{name:>17} {g:8.3f} {s:8.3f} {g + s:8.3f} {rate:7.0f}   {THEIRS[name]:.2f}; {(g + s) / THEIRS[name]:.3f}")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bin", default=str(ROOT / "build/release/bin"))
    p.add_argument("--model", default=str(ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    p.add_argument("--requests", type=int, default=200)
    p.add_argument("--costless", action="store_true")
    p.add_argument("--seconds", type=int, default=3)
    p.add_argument("--repeat", type=int, default=3)
    a = p.parse_args()
    harness.BIN, harness.MODEL = os.path.realpath(a.bin), os.path.realpath(a.model)
    if a.costless:
        return costless(a)
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
