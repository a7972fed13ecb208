"""Greedy tokens are the same however a prompt travels: alone, batched, chunked, from a warm prefix cache, through P/D over shm and tcp."""
import concurrent.futures, unittest

from harness import Stack, complete, post, total
from prompts import prompts

PROMPTS = prompts()
TOKENS = 24
HALF = PROMPTS[1::2]  # of every length, the longest too


def all_at(port, workers=1, chosen=PROMPTS):
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return dict(zip(chosen, pool.map(lambda p: complete(port, p, TOKENS, ignore_eos=True), chosen)))


class Identity(unittest.TestCase):
    def compare(self, got, how):
        for prompt, have in got.items():
            self.assertEqual(self.reference[prompt], have, f"prompt {PROMPTS.index(prompt)} differs {how}")

    @classmethod
    def setUpClass(cls):
        with Stack(prefill=0, decode=1, engine_args=["--no-enable-prefix-caching"]) as s:
            cls.reference = all_at(s.port)

    def test_prompts_span_8_to_1500_tokens(self):
        with Stack(prefill=0, decode=1) as s:
            counts = [post(s.engine_port("engine-0"), "/tokenize", {"prompt": p})[2]["count"] for p in PROMPTS]
        self.assertEqual(len(counts), 50)
        self.assertLessEqual(min(counts), 12)
        self.assertGreaterEqual(max(counts), 1300)
        self.assertLessEqual(max(counts), 1600)

    def test_batched_and_warm_prefix_cache(self):
        with Stack(prefill=0, decode=1) as s:
            self.compare(all_at(s.port, 16), "in a batch of 16")
            port = s.engine_port("engine-0")
            before = total(port, "vllm:prefix_cache_hits_total")
            self.compare(all_at(s.port, 4, HALF), "with a warm prefix cache")
            self.assertGreater(total(port, "vllm:prefix_cache_hits_total"), before + 3000)

    def test_chunked_differently_and_small_pool(self):
        with Stack(prefill=0, decode=1, engine_args=["--max-num-batched-tokens=97", "--max-num-seqs=5", "--num-gpu-blocks-override=160"]) as s:
            self.compare(all_at(s.port, 8, HALF), "in chunks of at most 97 tokens over a pool of 160 blocks")

    def through_pd(self, transport, chosen):
        with Stack(prefill=1, decode=1, args=["--kv-transport", transport]) as s:
            self.compare(all_at(s.port, 3, chosen), f"through P/D over {transport}")
            decode = s.engine_port("decode-0")
            moved = total(decode, "vllm:external_prefix_cache_hits_total")
            self.assertGreater(moved, 1500, "prompt tokens came from the prefill worker")
            computed = total(decode, "vllm:prompt_tokens_by_source_total", 'source="local_compute"')
            self.assertEqual(computed, 0, "the decode worker computed prompt tokens")
            self.assertEqual(total(decode, "vllm:nixl_num_failed_transfers_total"), 0)

    def test_fp8_cache(self):
        """A cache of half the bytes: tokens of its own, the same ones alone, in a batch, in chunks over a small pool, and through P/D."""
        fp8, some = ["--kv-cache-dtype=fp8"], PROMPTS[1::16]
        with Stack(prefill=0, decode=1, engine_args=[*fp8, "--no-enable-prefix-caching"]) as s:
            alone = all_at(s.port, 1, some)
            self.assertGreater(total(s.engine_port("engine-0"), "vllm:cache_config_info", 'cache_dtype="fp8"'), 0)
        with Stack(prefill=0, decode=1, engine_args=[*fp8, "--max-num-batched-tokens=97", "--max-num-seqs=5", "--num-gpu-blocks-override=160"]) as s:
            self.assertEqual(all_at(s.port, 8, some), alone)
            self.assertEqual(all_at(s.port, 4, some), alone, "with a warm prefix cache")
        for transport in ("shm", "tcp"):
            with self.subTest(transport=transport), Stack(args=["--kv-transport", transport], engine_args=fp8) as s:
                self.assertEqual(all_at(s.port, 3, some), alone)
                decode = s.engine_port("decode-0")
                tokens = total(decode, "vllm:external_prefix_cache_hits_total")
                self.assertGreater(tokens, 1000, "prompt tokens came from the prefill worker")
                moved = total(decode, "kv_transfer_bytes_total", 'path="')
                self.assertLess(moved, 0.6 * 23040 * tokens, "half of what bf16 takes: 30 layers, 3 heads, 64 dims, 1 byte, K and V")
                self.assertEqual(total(decode, "vllm:prompt_tokens_by_source_total", 'source="local_compute"'), 0)

    def test_pd_over_shm(self):
        self.through_pd("shm", HALF[::2])

    def test_pd_over_tcp(self):
        self.through_pd("tcp", HALF[1::2])
