#!/usr/bin/env python3
"""CPU time of the embedded gateway alone, per request and per streamed chunk, before a worker that costs nothing (canned bytes from this
process). User and system time are the kernel's accounting of the gateway's threads.   bench/gateway_cpu.py [--requests 2000] [--flag=...]
Loads: small answers in one piece, on kept and on new connections; 101 chunks that come together (a fast worker, a slow network); 101 chunks one by one (each waits until
the client has the last one, so nothing is ever joined: the dearest case)."""
import argparse, asyncio, json, os, pathlib, socket, subprocess, tempfile, time, urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHUNKS = 101
CHUNK = b'data: {"id":"cmpl-0123456789abcdef","object":"text_completion","created":1700000000,"model":"m","choices":[{"index":0,"text":" word","logprobs":null,"finish_reason":null,"stop_reason":null}],"usage":null}\n\n'


def framed(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def answer(body):
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


class Worker:
    """Passes the probes and answers by the prompt's first word."""

    def __init__(self):
        self.heard = None  # one by one: set by the client when it has a chunk

    async def serve(self, r, w):
        try:
            while True:
                head = await r.readuntil(b"\r\n\r\n")
                length = next((int(l.split(b":")[1]) for l in head.split(b"\r\n") if l.lower().startswith(b"content-length")), 0)
                body = await r.readexactly(length)
                if head.startswith(b"GET /v1/models"):
                    w.write(answer(b'{"object":"list","data":[{"id":"m","object":"model"}]}'))
                elif head.startswith(b"GET"):
                    w.write(answer(b"vllm:num_requests_waiting 0\nvllm:num_requests_running 0\n"))
                elif b'"stream":true' not in body:
                    w.write(answer(b'{"id":"cmpl-1","choices":[{"index":0,"text":" word"}],"usage":{"prompt_tokens":40,"completion_tokens":1}}'))
                else:
                    w.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
                    if b"together" in body:
                        w.write(framed(CHUNK) * CHUNKS)
                    else:
                        for _ in range(CHUNKS):
                            self.heard = asyncio.get_running_loop().create_future()
                            w.write(framed(CHUNK))
                            await self.heard
                    w.write(framed(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        w.close()


async def load(port, worker, n, connections, prompt, stream, keep=True):
    body = json.dumps({"model": "m", "prompt": prompt, "max_tokens": CHUNKS, **({"stream": True} if stream else {})}, separators=(",", ":")).encode()
    request = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    left = [n]

    async def one():
        r, w = await asyncio.open_connection("127.0.0.1", port)
        while left[0] > 0:
            left[0] -= 1
            if not keep:
                w.close()
                r, w = await asyncio.open_connection("127.0.0.1", port)
            w.write(request)
            head = await r.readuntil(b"\r\n\r\n")
            assert b" 200 " in head[:20], head
            if not stream:
                await r.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
                continue
            tail = b""
            while not tail.endswith(b"0\r\n\r\n"):
                data = await r.read(1 << 16)
                assert data
                tail = (tail + data)[-64:]
                if worker.heard is not None and not worker.heard.done() and data.endswith(b"\n\n\r\n"):
                    worker.heard.set_result(None)
        w.close()

    await asyncio.gather(*[one() for _ in range(connections)])


def cpu(pid):
    user, system = map(int, open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[11:13])
    exact = sum(int(open(f"/proc/{pid}/task/{t}/schedstat").read().split()[0]) for t in os.listdir(f"/proc/{pid}/task")) / 1e9
    share = user / max(1, user + system)
    return exact, user / os.sysconf("SC_CLK_TCK"), system / os.sysconf("SC_CLK_TCK"), share


async def run(a):
    worker = Worker()
    server = await asyncio.start_server(worker.serve, "127.0.0.1", 0)
    endpoints = tempfile.NamedTemporaryFile("w", suffix=".yaml")
    endpoints.write(f"endpoints: [{{address: 127.0.0.1, port: {server.sockets[0].getsockname()[1]}}}]")
    endpoints.flush()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    gateway = subprocess.Popen([a.router, "--http-port", str(port), "--host", "127.0.0.1", "--endpoints", endpoints.name, "--log-level", a.log_level, *a.flag],
                               stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                r, w = await asyncio.open_connection("127.0.0.1", port)
                w.write(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                if b" 200 " in await r.read(64):
                    break
            except OSError:
                pass
            await asyncio.sleep(0.05)
        prompt = "A short prompt of about forty tokens. " * 4
        print(f"{'load':>16} {'requests':>9} {'ms a request':>13} {'user ms':>8} {'system ms':>10}")
        per = {}
        for name, text, stream, n, connections in (("one piece", prompt, False, a.requests, 8), ("new connections", prompt, False, a.requests, 8),
                                                   ("101 together", "together " + prompt, True, a.requests // 2, 8),
                                                   ("101 one by one", prompt, True, max(1, a.requests // 10), 1)):
            keep = name != "new connections"
            await load(port, worker, max(1, n // 10), connections, text, stream, keep)
            before = cpu(gateway.pid)
            await load(port, worker, n, connections, text, stream, keep)
            after = cpu(gateway.pid)
            exact, user, system = ((after[i] - before[i]) * 1e3 / n for i in range(3))
            part = user / max(1e-9, user + system)
            per[name] = (exact, exact * part)
            print(f"{name:>16} {n:>9} {exact:>13.4f} {exact * part:>8.4f} {exact * (1 - part):>10.4f}")
        for name in ("101 together", "101 one by one"):
            whole, user = ((per[name][i] - per["one piece"][i]) * 1e3 / CHUNKS for i in range(2))
            print(f"us a chunk, {name}: {whole:.2f}, of which user {user:.2f}")
    finally:
        gateway.terminate()
        gateway.wait()


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--router", default=str(ROOT / "build/release/bin/baton-router"))
    p.add_argument("--requests", type=int, default=4000)
    p.add_argument("--log-level", default="info")
    p.add_argument("--flag", action="append", default=[], help="a further flag of the gateway")
    asyncio.run(run(p.parse_args()))
