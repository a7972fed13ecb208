"""kill -9 of any one worker at any moment: the client gets the right answer, and nothing leaks."""
import concurrent.futures, json, signal, socket, time, unittest

from harness import Stack, complete, post, total, wait_for
from prompts import prompts

LONG = prompts()[44]    # some 700 tokens: where something must happen while they are computed
MIDDLE = prompts()[40]  # some 400: where they only have to move
PLAIN = ["--no-enable-prefix-caching", "--kv-lease=3"]  # no cache: every run computes; a short lease: leaks show soon


def nothing_leaks(test, ports):
    for port in ports:
        wait_for(lambda: total(port, "vllm:kv_cache_usage_perc") == 0, 45, f"KV blocks of port {port} to come back")
        wait_for(lambda: total(port, "kv_grants") == 0, 45, f"grants of port {port} to end")
        wait_for(lambda: total(port, "vllm:num_requests_running") + total(port, "vllm:num_requests_waiting") == 0, 45, "requests to end")


class Failures(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with Stack(prefill=0, decode=1) as s:
            cls.want = complete(s.port, LONG, 24, ignore_eos=True)
            cls.want_middle = complete(s.port, MIDDLE, 24, ignore_eos=True)

    def prefill_leg(self, s):
        """What the sidecar does first; returns the params that the decode leg needs."""
        status, _, body = post(s.endpoints["prefill-0"]["port"], "/v1/completions", {
            "prompt": MIDDLE, "max_tokens": 1, "temperature": 0, "ignore_eos": True,
            "kv_transfer_params": {"do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None, "remote_block_ids": None,
                                   "remote_host": None, "remote_port": None}})
        self.assertEqual(status, 200, body)
        self.assertTrue(body["kv_transfer_params"]["do_remote_prefill"])
        return body["kv_transfer_params"]

    def test_prefill_killed_during_transfer(self):
        for transport, delays_ms in (("shm", (0, 1, 4, 16)), ("tcp", (0, 2, 8, 16))):
            with self.subTest(transport=transport), Stack(args=["--kv-transport", transport], engine_args=PLAIN) as s:
                decode = s.engine_port("decode-0")
                for delay_ms in delays_ms:
                    params = self.prefill_leg(s)
                    with concurrent.futures.ThreadPoolExecutor(1) as pool:
                        answer = pool.submit(complete, decode, MIDDLE, 24, ignore_eos=True, kv_transfer_params=params)
                        time.sleep(delay_ms / 1000)
                        s.kill("prefill-0")
                        self.assertEqual(answer.result(), self.want_middle, f"killed {delay_ms} ms after the decode leg began")
                    s.wait_ready("prefill-0")
                nothing_leaks(self, [decode, s.endpoints["prefill-0"]["port"]])

    def test_prefill_killed_during_prefill(self):
        with Stack(engine_args=PLAIN) as s:
            prefill = s.endpoints["prefill-0"]["port"]
            for fraction in range(4):
                with concurrent.futures.ThreadPoolExecutor(1) as pool:
                    answer = pool.submit(complete, s.port, LONG, 24, ignore_eos=True)
                    wait_for(lambda: total(prefill, "vllm:num_requests_running") == 1, 10, "prefill to run")
                    time.sleep(0.05 * fraction)
                    s.kill("prefill-0")
                    self.assertEqual(answer.result(), self.want)
                s.wait_ready("prefill-0")
            nothing_leaks(self, [prefill, s.engine_port("decode-0")])

    def test_decode_killed_before_its_first_byte(self):
        with Stack(prefill=1, decode=2, engine_args=PLAIN) as s:
            prefill = s.endpoints["prefill-0"]["port"]
            for _ in range(3):
                with concurrent.futures.ThreadPoolExecutor(1) as pool:
                    answer = pool.submit(complete, s.port, LONG, 24, ignore_eos=True)
                    wait_for(lambda: total(prefill, "vllm:num_requests_running") == 1, 10, "prefill to run")
                    victim = self.busy_sidecar(s)
                    s.kill(victim)
                    self.assertEqual(answer.result(), self.want, f"{victim} killed while prefill ran for it")
                s.wait_ready(victim)
            nothing_leaks(self, [prefill, s.engine_port("decode-0"), s.engine_port("decode-1")])

    def busy_sidecar(self, s):
        """The decode worker whose sidecar holds the request now: the gateway counts requests in flight by endpoint."""
        found = []
        def look():
            for name in ("decode-0", "decode-1"):
                if total(s.port, "baton_gateway_endpoint_inflight_requests", f':{s.endpoints[name]["port"]}"') > 0:
                    found.append(name)
            return found
        wait_for(look, 10, "the gateway to say where the request is")
        return found[0]

    def test_forged_and_stale_params_recompute(self):
        with Stack(engine_args=PLAIN) as s:
            decode = s.engine_port("decode-0")
            params = self.prefill_leg(s)
            self.assertEqual(complete(decode, MIDDLE, 24, ignore_eos=True, kv_transfer_params=params), self.want_middle)
            self.assertEqual(complete(decode, MIDDLE, 24, ignore_eos=True, kv_transfer_params=params), self.want_middle, "a used grant")
            other = self.prefill_leg(s)
            text = complete(decode, "A quite different prompt.", 8, kv_transfer_params=other)
            self.assertEqual(text, complete(decode, "A quite different prompt.", 8), "another prompt's KV must never be used")
            for broken in ({**other, "x_kv": None}, {**other, "remote_port": 1}, {**other, "x_kv": {**other["x_kv"], "grant": "0" * 32}}, {"do_remote_prefill": True}):
                self.assertEqual(complete(decode, MIDDLE, 24, ignore_eos=True, kv_transfer_params=broken), self.want_middle)
            nothing_leaks(self, [decode, s.endpoints["prefill-0"]["port"]])

    def test_client_gone_between_the_legs_frees_prefill(self):
        with Stack(engine_args=PLAIN) as s:
            prefill = s.endpoints["prefill-0"]["port"]
            self.prefill_leg(s)  # nobody fetches it: the lease must end it
            wait_for(lambda: total(prefill, "kv_grants") > 0, 10, "the grant to be counted")  # by the transfer's own thread
            nothing_leaks(self, [prefill])

    def test_prefill_stopped(self):
        """SIGSTOP: decode misses its heartbeats and computes the prompt itself; what the stopped one kept goes when its lease ends."""
        for transport in ("shm", "tcp"):
            with self.subTest(transport=transport), Stack(args=["--kv-transport", transport], engine_args=PLAIN) as s:
                decode, prefill = s.engine_port("decode-0"), s.endpoints["prefill-0"]["port"]
                for delay_ms in (0, 3):
                    params = self.prefill_leg(s)
                    pid = s.children()["prefill-0"][0]
                    with concurrent.futures.ThreadPoolExecutor(1) as pool:
                        answer = pool.submit(complete, decode, MIDDLE, 24, ignore_eos=True, kv_transfer_params=params)
                        time.sleep(delay_ms / 1000)
                        s.kill("prefill-0", signal.SIGSTOP)
                        try:
                            self.assertEqual(answer.result(), self.want_middle, f"stopped {delay_ms} ms after the decode leg began")
                        finally:
                            s.kill("prefill-0", signal.SIGCONT)
                    self.assertEqual(s.children()["prefill-0"][0], pid, "it went on, nobody restarted it")
                    wait_for(lambda: total(decode, "kv_peer_state") == 1, 30, "the two to connect again")
                nothing_leaks(self, [decode, prefill])

    def test_engines_out_of_blocks(self):
        """Pools that hold two of six requests: they wait or are computed elsewhere, and every text is right."""
        with Stack(engine_args=[*PLAIN, "--num-gpu-blocks-override=64"]) as s:
            with concurrent.futures.ThreadPoolExecutor(6) as pool:
                texts = list(pool.map(lambda _: complete(s.port, MIDDLE, 24, ignore_eos=True), range(6)))
            self.assertEqual(set(texts), {self.want_middle})
            nothing_leaks(self, [s.engine_port("decode-0"), s.endpoints["prefill-0"]["port"]])

    def test_client_gone_at_every_arrow(self):
        with Stack(engine_args=PLAIN) as s:
            decode, prefill = s.engine_port("decode-0"), s.endpoints["prefill-0"]["port"]
            body = json.dumps({"prompt": LONG, "max_tokens": 60, "temperature": 0, "ignore_eos": True, "stream": True}).encode()
            head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            arrows = {
                "in the middle of its request": lambda c: c.sendall(head + body[:500]),
                "before anybody read it": lambda c: c.sendall(head + body),
                "while prefill runs": lambda c: (c.sendall(head + body), wait_for(lambda: total(prefill, "vllm:num_requests_running") == 1, 10, "prefill to run")),
                "when decode has it": lambda c: (c.sendall(head + body), wait_for(lambda: total(decode, "vllm:num_requests_running") == 1, 30, "decode to run")),
                "after the first bytes": lambda c: (c.sendall(head + body), c.recv(4096), c.recv(4096)),
            }
            for when, act in arrows.items():
                with self.subTest(when=when):
                    with socket.create_connection(("127.0.0.1", s.port)) as c:
                        act(c)
                    nothing_leaks(self, [decode, prefill])
            self.assertEqual(complete(s.port, LONG, 24, ignore_eos=True), self.want)
