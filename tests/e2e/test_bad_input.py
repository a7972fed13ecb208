"""What a stranger may send to any door: a clear answer, and nobody else's stream is disturbed."""
import json, socket, threading, unittest

from harness import Stack, complete, get, request, total, wait_for

BODIES = [
    (b"{", 400), (b"", 400), (b"[]", 400), (b"null", 400), (b'{"prompt":', 400), (b'{"prompt":"\\ud800"}', 400), (b'{"prompt":"\xff"}', 400),
    (b"[" * 5000, 400), (b'{"a":' * 3000, 400), (b'{"prompt":"x","max_tokens":-1}', 400), (b'{"prompt":"x","temperature":"hot"}', 400),
    (b'{"prompt":[]}', 400), (b'{"prompt":[99999999]}', 400), (b'{"prompt":{"a":1}}', 400), (b'{"prompt":"x","n":1000000}', 400),
    (b'{"prompt":"x","logit_bias":{"99999999":1}}', 400), (b'{"prompt":"x","stop":[""]}', 400), (b'{"prompt":"x","top_p":2}', 400),
    (b'{"prompt":"x","model":"no-such"}', 404), (b'{"prompt":"x","prompt":"y","max_tokens":1}', 200), (b'{"prompt":"x","max_tokens":1,"zzz":{"deep":[1]}}', 200),
]
RAW = [
    (b"GET / HTTP/9.9\r\n\r\n", b"HTTP/1.1 "), (b"\x16\x03\x01\x02\x00\x01\x00", b""), (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", b"HTTP/1.1 400"),
    (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", b"HTTP/1.1 400"),
    (b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 2_000_000 + b"\r\n\r\n", b"HTTP/1.1 431"),
    (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", b"HTTP/1.1 413"),
    (b"NONSENSE\r\n\r\n", b"HTTP/1.1 400"),
]


def raw(port, data):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as s:
        try:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            out = b""
            while chunk := s.recv(65536):
                out += chunk
            return out
        except (ConnectionResetError, BrokenPipeError):
            return b"reset"


class BadInput(unittest.TestCase):
    def test_every_door_answers_and_nobody_is_disturbed(self):
        with Stack(1, 1) as s:
            doors = [s.port, s.endpoints["decode-0"]["port"], s.engine_port("decode-0"), s.endpoints["prefill-0"]["port"]]
            want = complete(s.port, "Once upon a time", 150, ignore_eos=True)
            got = []
            def stream():
                for _ in range(3):
                    got.append(complete(s.port, "Once upon a time", 150, ignore_eos=True))
            undisturbed = threading.Thread(target=stream)
            undisturbed.start()
            for port in doors:
                for body, status in BODIES:
                    have, _, answer = request(port, "POST", "/v1/completions", body)
                    self.assertEqual(have, status, (port, body[:60], answer[:300]))
                    if status >= 400:
                        error = json.loads(answer)
                        error = error.get("error", error)  # the sidecar's own are flat, as llm-d's are
                        self.assertEqual(error["code"], status)
                        self.assertTrue(error["message"])
                for data, answer in RAW:
                    have = raw(port, data)
                    self.assertTrue(have.startswith(answer) or have == b"reset", (port, data[:60], have[:200]))
                self.assertEqual(request(port, "GET", "/no/such/path")[0], 404)
                self.assertIn(request(port, "DELETE", "/v1/completions")[0], (404, 405))
                self.assertEqual(get(port, "/health")[0], 200)
            undisturbed.join()
            self.assertEqual(got, [want] * 3)
            for port in doors[2:]:
                wait_for(lambda: total(port, "vllm:num_requests_running") == 0 and total(port, "vllm:kv_cache_usage_perc") == 0, 10, "all blocks back")

    def test_half_closed_and_silent_clients_cost_nothing(self):
        with Stack(1, 1) as s:
            engine = s.engine_port("decode-0")
            body = json.dumps({"prompt": "A long story:", "max_tokens": 4000, "ignore_eos": True, "stream": True}).encode()
            head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            silent = [socket.create_connection(("127.0.0.1", s.port)) for _ in range(50)]  # connect and say nothing
            with socket.create_connection(("127.0.0.1", s.port)) as c:
                c.sendall(head + body)
                self.assertTrue(c.recv(100))
                wait_for(lambda: total(engine, "vllm:num_requests_running") == 1, 10, "the request to run")
                c.shutdown(socket.SHUT_WR)  # what a client that gave up does
                wait_for(lambda: total(engine, "vllm:num_requests_running") == 0, 10, "the engine to drop it")
            self.assertTrue(complete(s.port, "Still there?", 4))
            for c in silent:
                c.close()
