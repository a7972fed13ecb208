"""Push with real processes: both legs at once. Same text as one engine, no prompt token computed twice, and any side may die in the middle."""
import concurrent.futures, http.client, json, unittest

from harness import Stack, complete, request, total, wait_for
from prompts import prompts
from test_failures import nothing_leaks

PROMPTS = prompts()
LONG = PROMPTS[44]  # some 700 tokens in eleven steps: 16 MB of KV, which moves while they are computed
PLAIN = ["--no-enable-prefix-caching", "--kv-lease=3", "--kv-push-chunk=64"]  # many steps a prompt: much happens in its middle


class Push(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with Stack(prefill=0, decode=1) as s:
            cls.want = complete(s.port, LONG, 24, ignore_eos=True)
            cls.want_short = complete(s.port, PROMPTS[32], 24, ignore_eos=True)
            cls.wants = [complete(s.port, p, 8, ignore_eos=True) for p in PROMPTS[:32]]

    def learn(self, s):
        """The first request through a prefill worker is serial; the sidecar learns from it."""
        complete(s.port, "Who are you?", 2)

    def pushed(self, s, decode="decode-0"):
        return total(s.engine_port(decode), "kv_hand_over_total", 'mode="push"')

    def test_64_at_once_say_what_one_engine_says(self):
        for transport in ("shm", "tcp"):
            with self.subTest(transport=transport), Stack(args=["--kv-transport", transport], engine_args=PLAIN) as s:
                self.learn(s)
                decode = s.engine_port("decode-0")
                before = total(decode, "vllm:prompt_tokens_by_source_total", 'source="local_compute"')
                with concurrent.futures.ThreadPoolExecutor(64) as pool:
                    got = list(pool.map(lambda i: complete(s.port, PROMPTS[i % 32], 8, ignore_eos=True), range(64)))
                self.assertEqual(got, self.wants * 2)
                self.assertEqual(self.pushed(s), 64)
                self.assertEqual(total(decode, "vllm:prompt_tokens_by_source_total", 'source="local_compute"'), before)
                self.assertEqual(total(decode, "vllm:nixl_num_failed_transfers_total"), 0)
                nothing_leaks(self, [decode, s.endpoints["prefill-0"]["port"]])

    def test_blocks_arrive_before_prefill_has_finished(self):
        with Stack(engine_args=PLAIN) as s:
            self.learn(s)
            decode, prefill = s.engine_port("decode-0"), s.endpoints["prefill-0"]["port"]
            moved = total(decode, "kv_transfer_bytes_total")
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                answer = pool.submit(complete, s.port, LONG, 24, ignore_eos=True)
                early = lambda: total(decode, "kv_transfer_bytes_total") > moved and total(prefill, "vllm:num_requests_running") == 1
                wait_for(lambda: early() or answer.done(), 60, "blocks to arrive")
                self.assertFalse(answer.done(), "the blocks came only with the answer")
                self.assertEqual(answer.result(), self.want)

    def test_logprobs_and_choices(self):
        with Stack(prefill=0, decode=1) as one, Stack(engine_args=PLAIN) as s:
            self.learn(s)
            for more in ({"logprobs": 2}, {"echo": True}, {"n": 2, "temperature": 0.8, "seed": 5}, {"min_tokens": 4}):
                body = {"prompt": PROMPTS[20], "max_tokens": 6, "temperature": 0, **more}
                want, got = (request(x.port, "POST", "/v1/completions", body) for x in (one, s))
                self.assertEqual(want[0], 200)
                self.assertEqual(json.loads(got[2])["choices"], json.loads(want[2])["choices"], more)
            nothing_leaks(self, [s.engine_port("decode-0"), s.endpoints["prefill-0"]["port"]])

    def test_prefill_killed_in_the_middle_of_a_push(self):
        for transport in ("shm", "tcp"):
            with self.subTest(transport=transport), Stack(args=["--kv-transport", transport], engine_args=PLAIN) as s:
                decode, prefill = s.engine_port("decode-0"), s.endpoints["prefill-0"]["port"]
                for part in (1, 5, 20):
                    self.learn(s)
                    moved = total(decode, "kv_transfer_bytes_total")
                    with concurrent.futures.ThreadPoolExecutor(1) as pool:
                        answer = pool.submit(complete, s.port, LONG, 24, ignore_eos=True)
                        wait_for(lambda: total(decode, "kv_transfer_bytes_total") > moved + part * 300_000 or answer.done(), 60, "the push to begin")
                        s.kill("prefill-0")
                        self.assertEqual(answer.result(), self.want)
                    s.wait_ready("prefill-0")
                nothing_leaks(self, [decode, prefill])

    def test_client_gone_in_the_middle_of_a_push(self):
        with Stack(engine_args=PLAIN) as s:
            self.learn(s)
            decode, prefill = s.engine_port("decode-0"), s.endpoints["prefill-0"]["port"]
            moved = total(decode, "kv_transfer_bytes_total")
            c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
            c.request("POST", "/v1/completions", json.dumps({"prompt": LONG, "max_tokens": 24}), {"Content-Type": "application/json"})
            wait_for(lambda: total(decode, "kv_transfer_bytes_total") > moved, 60, "the push to begin")
            c.close()
            nothing_leaks(self, [decode, prefill])

    def test_a_restarted_prefill_costs_one_request(self):
        with Stack(engine_args=PLAIN) as s:
            self.learn(s)
            self.assertEqual(complete(s.port, PROMPTS[32], 24, ignore_eos=True), self.want_short)
            self.assertEqual(self.pushed(s), 1)
            s.kill("prefill-0")
            s.wait_ready("prefill-0")
            peer = lambda: total(s.engine_port("decode-0"), "kv_peer_state") == 1
            wait_for(peer, 30, "the pair to be connected again")
            for _ in range(3):
                self.assertEqual(complete(s.port, PROMPTS[32], 24, ignore_eos=True), self.want_short)
            self.assertGreaterEqual(self.pushed(s), 3)

