#!/usr/bin/env python3
"""CPU time and memory of the sidecar alone, between engines that cost nothing (bench/router_backend.cc), over kept connections, by the kernel's own
accounting of its process.
bench/sidecar_cpu.py [--bin DIR] [--backend FILE] [--requests 2000] [--streams 10000] [-- FLAGS OF THE SIDECAR]"""
import argparse, asyncio, json, os, pathlib, re, resource, subprocess, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONNECTIONS = 16


def cpu_ms(pid):
    return sum(int(open(f"/proc/{pid}/task/{t}/schedstat").read().split()[0]) for t in os.listdir(f"/proc/{pid}/task")) / 1e6


def rss_mib(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read())[1]) / 1024


def backend(path, *args):
    p = subprocess.Popen([path, *args], stdout=subprocess.PIPE, text=True)
    return p, int(p.stdout.readline().split()[1])


def sidecar(path, engine, flags):
    log = tempfile.NamedTemporaryFile("w+")
    p = subprocess.Popen([path, "--host", "127.0.0.1", "--port", "0", "--model-server-port", str(engine), "--secure-proxy=false", *flags], stderr=log)
    while not (m := re.search(r"listening.*?address=127\.0\.0\.1:(\d+)", open(log.name).read())):
        if p.poll() is not None:
            sys.exit(open(log.name).read())
        os.sched_yield()
    return p, int(m[1])


def post(body, prefiller):
    named = f"x-prefiller-host-port: 127.0.0.1:{prefiller}\r\n" if prefiller else ""
    return f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{named}content-length: {len(body)}\r\n\r\n".encode() + body


async def answer(reader):
    """Reads one answer; true if it was a 200."""
    head = await reader.readuntil(b"\r\n\r\n")
    if m := re.search(rb"content-length: (\d+)", head, re.I):
        await reader.readexactly(int(m[1]))
    else:
        while (size := int(await reader.readline(), 16)) > 0:
            await reader.readexactly(size + 2)
        await reader.readline()
    return head.startswith(b"HTTP/1.1 200")


async def load(port, message, n):
    async def one(share):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(share):
            writer.write(message)
            assert await answer(reader)
        writer.close()
    await asyncio.gather(*[one(n // CONNECTIONS) for _ in range(CONNECTIONS)])


async def hold(port, message, n, pid):
    """n streams that have begun, at the same time; the sidecar's memory with them."""
    async def one():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(message)
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head, head
        return writer
    before, open_ = rss_mib(pid), []
    for start in range(0, n, 500):
        open_ += await asyncio.gather(*[one() for _ in range(min(500, n - start))])
    now = rss_mib(pid)
    for writer in open_:
        writer.close()
    return before, now


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bin", default=str(ROOT / "build/release/bin/baton-sidecar"))
    p.add_argument("--backend", default=str(ROOT / "build/release/bin/router_backend"))
    p.add_argument("--requests", type=int, default=2000)
    p.add_argument("--streams", type=int, default=10_000)
    p.add_argument("--tick-us", default="100", help="between the chunks of a stream; a chunk that comes alone is a wake-up of its own")
    p.add_argument("flags", nargs="*")
    a = p.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    slow = ["--chunks", "100000", "--tick-us", "5000000"]
    children = [backend(a.backend), backend(a.backend, "--tick-us", a.tick_us), backend(a.backend, *slow)]
    prefiller, engine, sleeper = (port for _, port in children)
    prompt = lambda size: json.dumps({"model": "m", "prompt": ("A word of a prompt. " * 4 + "\n") * (size // 82), "max_tokens": 8})
    stream = prompt(500)[:-1] + ', "stream": true}'
    rows = [("1.4 KB, one piece", prompt(1_400), a.requests, 0.12), ("0.5 KB, 100 chunks", stream, a.requests // 4, 0.35),
            ("450 KB, one piece", prompt(450_000), a.requests // 4, 1.0)]
    try:
        side = sidecar(a.bin, engine, a.flags)
        children.append(side)
        print(f"{'load':>20} {'P/D ms':>8} {'bar':>6} {'ratio':>6} {'no prefiller ms':>16}")
        for name, body, n, bar in rows:
            got = []
            for named in (prefiller, 0):
                message = post(body.encode(), named)
                asyncio.run(load(side[1], message, CONNECTIONS * 4))
                before = cpu_ms(side[0].pid)
                asyncio.run(load(side[1], message, n))
                got.append((cpu_ms(side[0].pid) - before) / (n // CONNECTIONS * CONNECTIONS))
            print(f"{name:>20} {got[0]:8.3f} {bar:6.2f} {got[0] / bar:6.2f} {got[1]:16.3f}")
        if a.streams:
            side = sidecar(a.bin, sleeper, a.flags)
            children.append(side)
            before, now = asyncio.run(hold(side[1], post(stream.encode(), prefiller), a.streams, side[0].pid))
            print(f"{a.streams} open streams: {now:.0f} MiB, {before:.0f} before (bar 200)")
    finally:
        for child, _ in children:
            child.terminate()
            child.wait()


if __name__ == "__main__":
    main()
