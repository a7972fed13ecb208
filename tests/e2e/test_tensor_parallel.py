"""Tensor parallelism over processes: an engine of several ranks answers alike in every run, takes the KV of an engine that has another number of them and
gives its own, and ends in one clear way when a rank ends. SmolLM2-135M has 9 heads over 3 KV heads: three ranks; a tiny model has two and four."""
import concurrent.futures, os, signal, subprocess, tempfile, unittest

import harness, tiny_llama
from harness import complete, free_port, get, post, total, wait_for

# What follows is certain, so the last bits of a sum, which depend on the number of ranks, decide nothing.
COUNT = ", ".join(map(str, range(1, 41))) + ","
LETTERS = "The letters of the alphabet in order, again and again: " + ", ".join("abcdefghijklmnopqrstuvwxyz") + ", " + ", ".join("abcdefghijk") + ","


class Engine:
    """One baton-engine by hand: with Engine(ranks, kv_port, peers=[kv ports]) as e: e.port, e.process"""

    def __init__(self, ranks, kv_port=None, peers=(), model=None):
        self.port, self.kv_port = free_port(), kv_port or free_port()
        self.log = tempfile.NamedTemporaryFile("w+", prefix="baton-e2e-tp-", suffix=".log")
        self.command = [f"{harness.BIN}/baton-engine", "serve", model or harness.MODEL, "--host", "127.0.0.1", "--port", str(self.port), "--served-model-name", "m",
                        "--tensor-parallel-size", str(ranks), "--threads", "1", "--max-model-len", "1024", "--num-gpu-blocks-override", "200",
                        "--no-enable-prefix-caching", "--disable-log-stats", "--kv-transfer-port", str(self.kv_port)]
        for peer in peers:
            self.command += ["--kv-peers", f"127.0.0.1:{peer}"]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log)
        return self

    def ready(self):
        def up():
            assert self.process.poll() is None, open(self.log.name).read()
            return get(self.port, "/health")[0] == 200

        wait_for(up, 120, "the engine to be ready")
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def ranks(self):
        """Process ids of its other ranks."""
        out = []
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            try:
                parent = int(open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[1])
                if parent == self.process.pid and "tensor-parallel-rank" in open(f"/proc/{pid}/cmdline").read():
                    out.append(pid)
            except OSError:
                pass
        return out


def alive(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def hand_over(prefill, decode, prompt, tokens):
    """The text of `decode`, whose prompt `prefill` read."""
    status, _, answer = post(prefill.port, "/v1/completions", {"prompt": prompt, "max_tokens": 1, "temperature": 0, "kv_transfer_params": {
        "do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None, "remote_block_ids": None, "remote_host": None, "remote_port": None}})
    assert status == 200, answer
    return complete(decode.port, prompt, tokens, ignore_eos=True, kv_transfer_params=answer["kv_transfer_params"])


class TensorParallel(unittest.TestCase):
    def idle(self, *engines):
        for e in engines:
            wait_for(lambda: total(e.port, "vllm:kv_cache_usage_perc") == 0, 60, "all blocks to be back")

    def test_text_is_the_same_in_every_run_and_from_any_prefill(self):
        ports = [free_port(), free_port()]
        with Engine(1, ports[0], [ports[1]]) as one, Engine(3, ports[1], [ports[0]]) as three:
            one.ready(), three.ready()
            self.assertEqual(len(three.ranks()), 2)
            want = {prompt: complete(three.port, prompt, 24, ignore_eos=True) for prompt in (COUNT, LETTERS)}
            for prompt, text in want.items():
                for prefill, decode in ((one, three), (three, one)):
                    taken = total(decode.port, "kv_hand_over_total")
                    self.assertEqual(hand_over(prefill, decode, prompt, 24), text)
                    self.assertEqual(total(decode.port, "kv_hand_over_total"), taken + 1, "the KV was not taken")
            with concurrent.futures.ThreadPoolExecutor(4) as pool:  # together, as alone
                texts = list(pool.map(lambda p: complete(three.port, p, 24, ignore_eos=True), [COUNT, LETTERS] * 3))
            self.assertEqual(texts, [want[COUNT], want[LETTERS]] * 3)
            self.idle(one, three)
            ranks = three.ranks()
        self.assertEqual((one.process.returncode, three.process.returncode), (0, 0))
        self.assertFalse(any(map(alive, ranks)))
        with Engine(3) as again:
            again.ready()
            self.assertEqual({prompt: complete(again.port, prompt, 24, ignore_eos=True) for prompt in want}, want)

    def test_prefill_of_one_rank_for_decode_of_two_and_of_four(self):
        prompts = ["The first of two prompts, long enough for several blocks of KV: " + "0123456789" * 5, "Another one, " * 12]
        with tempfile.TemporaryDirectory() as model:
            tiny_llama.write(model)
            ports = [free_port() for _ in range(3)]
            with Engine(1, ports[0], ports[1:], model) as one, Engine(2, ports[1], ports[:1], model) as two, Engine(4, ports[2], ports[:1], model) as four:
                for e in (one, two, four):
                    e.ready()
                for prompt in prompts:
                    for decode in (two, four):
                        want = complete(decode.port, prompt, 24, ignore_eos=True)
                        for _ in range(2):
                            self.assertEqual(hand_over(one, decode, prompt, 24), want)
                    self.assertEqual(hand_over(two, one, prompt, 24), complete(one.port, prompt, 24, ignore_eos=True))
                self.assertEqual([total(e.port, "kv_hand_over_total") for e in (one, two, four)], [2, 4, 4])
                self.idle(one, two, four)

    def test_a_killed_rank_ends_the_engine(self):
        with Engine(3) as e, concurrent.futures.ThreadPoolExecutor(1) as pool:
            e.ready()
            running = pool.submit(post, e.port, "/v1/completions", {"prompt": COUNT, "max_tokens": 800, "ignore_eos": True, "temperature": 0})
            wait_for(lambda: total(e.port, "vllm:num_requests_running") == 1, 60, "the request to run")
            first, second = e.ranks()
            os.kill(second, signal.SIGKILL)
            status, _, answer = running.result(60)
            self.assertEqual(status, 500, answer)
            self.assertEqual(answer["error"]["type"], "InternalServerError")
            self.assertEqual(e.process.wait(60), 1)
            wait_for(lambda: not alive(first), 60, "the other rank to end")

    def test_ranks_end_with_a_killed_engine(self):
        with Engine(3) as e:
            e.ready()
            ranks = e.ranks()
            e.process.kill()
            wait_for(lambda: not any(map(alive, ranks)), 60, "the ranks to end")

    def test_a_model_that_cannot_be_cut_is_refused(self):
        with Engine(2) as e:
            self.assertEqual(e.process.wait(60), 1)
            self.assertIn("9 attention heads", open(e.log.name).read())
