"""The gateway's edge on real processes: bad luck and bad manners have named outcomes; `baton top` shows them."""
import json, resource, socket, subprocess, unittest

import harness
from harness import Stack, complete, get, post, request, total, wait_for


class Edge(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = Stack(prefill=1, decode=1).__enter__()
        cls.port = cls.stack.port

    @classmethod
    def tearDownClass(cls):
        cls.stack.__exit__(None, None, None)

    def test_ten_thousand_connects(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        n = min(10_000, hard - 500)
        idle = [socket.create_connection(("127.0.0.1", self.port), timeout=30) for _ in range(n)]
        try:
            complete(self.port, "Behind ten thousand connections", 4)
            for s in (idle[0], idle[n // 2], idle[-1]):
                s.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                self.assertIn(b"200 OK", s.recv(200))
        finally:
            for s in idle:
                s.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        complete(self.port, "And after them", 4)

    def test_body_of_a_hundred_megabytes(self):
        s = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n{")
        answer = s.recv(4096)
        self.assertIn(b" 413 ", answer.split(b"\r\n")[0])
        s.close()
        complete(self.port, "The next one is served", 4)

    def test_long_prompt_says_so(self):
        status, _, answer = post(self.port, "/v1/completions", {"prompt": "word " * 400_000, "max_tokens": 1})
        self.assertEqual(status, 400, answer)
        self.assertIn("maximum context length", answer["error"]["message"])

    def test_top_shows_pools_workers_and_why(self):
        complete(self.port, "Something to decide about", 4)
        out = subprocess.run([f"{harness.BIN}/baton", "top", "--once", "--url", self.stack.url], capture_output=True, text=True, timeout=30)
        self.assertEqual(out.returncode, 0, out.stderr)
        for want in ("2 of 2 workers up", "pool ", "prefill", "decode", "remote-prefill", "prompt tokens cached"):
            self.assertIn(want, out.stdout)
        self.assertNotIn("\033", out.stdout)
        for e in self.stack.endpoints.values():
            self.assertIn(f'127.0.0.1:{e["port"]}', out.stdout)
        bad = subprocess.run([f"{harness.BIN}/baton", "top", "--once", "--url", "http://127.0.0.1:1"], capture_output=True, text=True, timeout=30)
        self.assertNotEqual(bad.returncode, 0)

    def test_debug_state_is_json(self):
        status, state = get(self.port, "/debug/plugins/state")
        self.assertEqual(status, 200)
        pool = json.loads(state)["pools"][0]
        self.assertEqual({e["role"] for e in pool["endpoints"]}, {"prefill", "decode"})

    def test_refusals_are_openai_errors_with_retry_after(self):
        status, head, answer = post(self.port, "/v1/completions", {"model": "no-such-model", "prompt": "x"})
        self.assertEqual((status, answer["error"]["code"]), (404, 404))


if __name__ == "__main__":
    unittest.main()
