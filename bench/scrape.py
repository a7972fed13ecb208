#!/usr/bin/env python3
"""CPU of the router for reading the metrics of 100 busy engines 20 times a second, nothing else going on. User and system time are the kernel's accounting.
bench/scrape.py [--endpoints 100] [--seconds 5] [--interval 50ms]
Two kinds of engine: one gives the chosen families alone where it is asked with name[] (vLLM, prometheus_client), one always its whole text (as long as a vLLM with ten
histograms has it). The engines are one event loop in this process on many loopback addresses, and their numbers move all the time."""
import argparse, asyncio, json, os, pathlib, subprocess, tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
LABELS = 'engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"'
GAUGES = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")


def histogram(name):
    bounds = [round(0.001 * 1.6 ** i, 5) for i in range(22)]
    lines = [f"# HELP vllm:{name} Histogram of {name.replace('_', ' ')}.", f"# TYPE vllm:{name} histogram"]
    lines += [f'vllm:{name}_bucket{{{LABELS},le="{b}"}} {1000 + i}.0' for i, b in enumerate(bounds + ["+Inf"])]
    return lines + [f"vllm:{name}_sum{{{LABELS}}} 12345.678", f"vllm:{name}_count{{{LABELS}}} 1022.0"]


def gauges(tick):
    values = (8 + tick % 7, tick % 3, 0.25 + tick % 100 / 400)
    lines = []
    for name, value in zip(GAUGES, values):
        lines += [f"# HELP {name} {name}", f"# TYPE {name} gauge", f"{name}{{{LABELS}}} {float(value)}"]
    return lines


INFO = ["# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig", "# TYPE vllm:cache_config_info gauge",
        f'vllm:cache_config_info{{block_size="16",cache_dtype="auto",num_gpu_blocks="27000",{LABELS}}} 1.0']
BEFORE = [f"python_gc_objects_collected_total{{generation=\"{i}\"}} {i}.0" for i in range(12)]
AFTER = sum((histogram(f"h{i}_request_time_seconds") for i in range(16)), []) + INFO


class Engines(asyncio.Protocol):
    selective, scrapes, bytes_sent = True, 0, 0

    def connection_made(self, transport):
        self.transport, self.held = transport, b""

    def data_received(self, data):
        self.held += data
        while b"\r\n\r\n" in self.held:
            head, self.held = self.held.split(b"\r\n\r\n", 1)
            if not head.startswith(b"GET /metrics"):
                body = b'{"object":"list","data":[{"id":"m"}]}' if head.startswith(b"GET /v1/models") else b""
            else:
                cls = type(self)
                cls.scrapes += 1
                chosen = cls.selective and b"name[]=" in head.split(b"\r\n", 1)[0]
                body = ("\n".join(gauges(cls.scrapes) + INFO if chosen else BEFORE + gauges(cls.scrapes) + AFTER) + "\n").encode()
            type(self).bytes_sent += len(body)
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


def cpu(pid):
    user, system = map(int, open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[11:13])
    exact = sum(int(open(f"/proc/{pid}/task/{t}/schedstat").read().split()[0]) for t in os.listdir(f"/proc/{pid}/task")) / 1e9
    return exact, user, system


async def measure(a, binary, selective):
    kind = type("Engines", (Engines,), {"selective": selective})
    server = await asyncio.get_running_loop().create_server(kind, "0.0.0.0", 0)
    port = server.sockets[0].getsockname()[1]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump({"endpoints": [{"name": f"e{i}", "address": f"127.0.1.{i + 1}", "port": port} for i in range(a.endpoints)]}, f)
        f.flush()
        router = subprocess.Popen([binary, "--endpoints", f.name, "--grpc-port", "0", "--grpc-health-port", "0", "--metrics-port", "0", "--secure-serving=false",
                                   "--refresh-metrics-interval", a.interval, "--drain-timeout", "0s"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            await asyncio.sleep(2)
            rows = []
            for _ in range(a.repeat):
                before, scrapes, sent = cpu(router.pid), kind.scrapes, kind.bytes_sent
                await asyncio.sleep(a.seconds)
                after = cpu(router.pid)
                n = kind.scrapes - scrapes
                share = (after[0] - before[0]) / a.seconds
                user = (after[1] - before[1]) / max(1, sum(after[1:]) - sum(before[1:]))
                rows.append((share, n / a.seconds, share * 1e6 * a.seconds / max(1, n), user, (kind.bytes_sent - sent) / max(1, n)))
            return sorted(rows)[len(rows) // 2]
        finally:
            router.terminate()
            router.wait()
            server.close()


async def run(a):
    print(f"{'engines give':>22} {'cores':>7} {'scrapes/s':>10} {'us each':>8} {'user':>6} {'bytes':>7}   binary")
    for selective, name in ((True, "what is asked for"), (False, "everything")):
        for binary in [a.router] + ([a.against] if a.against else []):
            share, rate, each, user, size = await measure(a, binary, selective)
            print(f"{name:>22} {share:7.3f} {rate:10.0f} {each:8.1f} {user:6.2f} {size:7.0f}   {os.path.relpath(binary, ROOT)}")


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--router", default=str(ROOT / "build/release/bin/baton-router"))
    p.add_argument("--against", help="another baton-router, measured after it")
    p.add_argument("--endpoints", type=int, default=100)
    p.add_argument("--seconds", type=int, default=5)
    p.add_argument("--repeat", type=int, default=1)
    p.add_argument("--interval", default="50ms")
    asyncio.run(run(p.parse_args()))
