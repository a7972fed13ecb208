#!/usr/bin/env python3
"""Memory of the gateway with many streams open at once, each having had its head and some chunks and waiting for more.
bench/gateway_streams.py [--streams 32000] [--flag=...]      with `ulimit -Hn` of twice as many
Client and worker are event loops of their own, on many loopback addresses, because one pair of addresses has no more than 28,000 ports."""
import argparse, asyncio, json, os, pathlib, resource, socket, subprocess, sys, tempfile, time, urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHUNK = b'data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":" word","finish_reason":null}]}\n\n'
ADDRESSES = 8


def files(n):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if 0 <= hard < n:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (n, n))
        except (ValueError, OSError):
            sys.exit(f"needs {n} open files, and no more than {hard} are allowed here: fewer --streams")
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (n, hard))


class Worker(asyncio.Protocol):
    """Two chunks to every stream, the rest and the end when it is told to end them all."""
    streams, ended = [], False

    def connection_made(self, transport):
        self.transport, self.held = transport, b""

    def answer(self, body):
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    def data_received(self, data):
        self.held += data
        while b"\r\n\r\n" in self.held:
            head, rest = self.held.split(b"\r\n\r\n", 1)
            length = next((int(l.split(b":")[1]) for l in head.split(b"\r\n") if l.lower().startswith(b"content-length")), 0)
            if len(rest) < length:
                return
            self.held = rest[length:]
            if head.startswith(b"GET /end"):
                for s in Worker.streams:
                    s.write(b"%x\r\n%s\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n" % (len(CHUNK), CHUNK))
                Worker.streams = []
                self.answer(b"")
            elif head.startswith(b"GET"):
                self.answer(b'{"data":[{"id":"m"}]}' if b"/v1/models" in head else b"vllm:num_requests_waiting 0\nvllm:num_requests_running 1\nvllm:kv_cache_usage_perc 0\n")
            else:
                Worker.streams.append(self.transport)
                self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%s\r\n" % (len(CHUNK), CHUNK) * 2)


async def worker(streams):
    files(streams + 1000)
    server = await asyncio.get_running_loop().create_server(Worker, "0.0.0.0", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Client(asyncio.Protocol):
    open, done = 0, 0

    def connection_made(self, transport):
        self.tail, self.chunks = b"", 0
        body = b'{"model":"m","prompt":"%s","max_tokens":100,"stream":true}' % (b"A prompt of some forty tokens. " * 5)
        transport.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    def data_received(self, data):
        before = self.chunks
        self.chunks += data.count(b"data: {")
        Client.open += before < 2 <= self.chunks
        self.tail = (self.tail + data)[-5:]
        Client.done += self.tail == b"0\r\n\r\n"


def memory(pid):
    return {l.split(":")[0]: int(l.split()[1]) for l in open(f"/proc/{pid}/status") if l.startswith(("VmRSS", "RssAnon"))}


async def until(condition, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}: {Client.open} open, {Client.done} done"
        await asyncio.sleep(0.05)


async def run(a):
    files(2 * a.streams + 200)  # the gateway inherits it: two a stream
    with tempfile.TemporaryDirectory() as folder, \
            subprocess.Popen([sys.executable, __file__, "--worker", "--streams", str(a.streams)], stdout=subprocess.PIPE) as other:
        worker_port = int(other.stdout.readline())
        pool = [{"name": f"w{i}", "address": f"127.0.1.{i + 1}", "port": worker_port} for i in range(ADDRESSES)]
        pathlib.Path(f"{folder}/endpoints.json").write_text(json.dumps({"endpoints": pool}))
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        gateway = subprocess.Popen([a.router, "--http-port", str(port), "--host", "127.0.0.1", "--endpoints", f"{folder}/endpoints.json",
                                    "--max-concurrent-requests", str(a.streams + 100), *a.flag], stderr=subprocess.DEVNULL)
        try:
            def healthy():
                try:
                    return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).status == 200
                except OSError:
                    return False
            await until(healthy, 20, "the gateway")
            loop = asyncio.get_running_loop()
            for i in range(100):  # the first ones pay for code and tables
                await loop.create_connection(Client, "127.0.0.1", port, local_addr=("127.0.2.1", 0))
            await until(lambda: Client.open == 100, 20, "the first streams")
            before, begun = memory(gateway.pid), time.monotonic()
            for at in range(100, a.streams, 200):
                n = min(200, a.streams - at)
                await asyncio.gather(*[loop.create_connection(Client, "127.0.0.1", port, local_addr=(f"127.0.2.{1 + at // 200 % ADDRESSES}", 0)) for _ in range(n)])
            await until(lambda: Client.open == a.streams, 120, "all streams")
            after = memory(gateway.pid)
            n = a.streams - 100
            print(f"{a.streams} streams open after {time.monotonic() - begun:.1f} s; gateway: {after['VmRSS'] / 1024:.0f} MiB resident, {(after['RssAnon'] - before['RssAnon']) / n:.2f} KiB a stream")
            urllib.request.urlopen(f"http://127.0.0.1:{worker_port}/end", timeout=60).read()
            await until(lambda: Client.done == a.streams, 60, "their ends")
            print(f"all {Client.done} ended whole; {memory(gateway.pid)['VmRSS'] / 1024:.0f} MiB resident")
        finally:
            gateway.terminate()
            gateway.wait()
            other.terminate()


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--router", default=str(ROOT / "build/release/bin/baton-router"))
    p.add_argument("--streams", type=int, default=32_000)
    p.add_argument("--flag", action="append", default=[], help="a further flag of the gateway")
    p.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    a = p.parse_args()
    asyncio.run(worker(a.streams) if a.worker else run(a))
