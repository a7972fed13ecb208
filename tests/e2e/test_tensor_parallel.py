"""Tensor parallelism over processes: an engine of several ranks answers alike in every run, takes the KV of an engine that has another number of them and
gives its own, loads LoRA adapters in all ranks or in none, sleeps in all of them, and ends in one clear way when a rank ends. SmolLM2-135M has 9 heads over 3 KV heads: three ranks; tiny models, one of them a mixture of experts, have two and four."""
import concurrent.futures, json, os, shutil, signal, subprocess, tempfile, unittest

import harness, tiny_llama
from harness import complete, free_port, get, post, request, total, wait_for
from test_lora import write_adapter

# What follows is certain, so the last bits of a sum, which depend on the number of ranks, decide nothing.
COUNT = ", ".join(map(str, range(1, 41))) + ","
LETTERS = "The letters of the alphabet in order, again and again: " + ", ".join("abcdefghijklmnopqrstuvwxyz") + ", " + ", ".join("abcdefghijk") + ","


class Engine:
    """One baton-engine by hand: with Engine(ranks, kv_port, peers=[kv ports]) as e: e.port, e.process"""

    def __init__(self, ranks, kv_port=None, peers=(), model=None, kv=True, args=()):
        self.port, self.kv_port = free_port(), kv_port or free_port()
        self.log = tempfile.NamedTemporaryFile("w+", prefix="baton-e2e-tp-", suffix=".log")
        self.command = [f"{harness.BIN}/baton-engine", "serve", model or harness.MODEL, "--host", "127.0.0.1", "--port", str(self.port), "--served-model-name", "m",
                        "--tensor-parallel-size", str(ranks), "--threads", "1", "--max-model-len", "1024", "--num-gpu-blocks-override", "200",
                        "--no-enable-prefix-caching", "--disable-log-stats", *args]
        if kv:
            self.command += ["--kv-transfer-port", str(self.kv_port)]
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
        self.prefill_of_one_rank(experts=0)

    def test_the_same_of_a_mixture_of_experts(self):
        self.prefill_of_one_rank(experts=6)

    def prefill_of_one_rank(self, experts):
        prompts = ["The first of two prompts, long enough for several blocks of KV: " + "0123456789" * 5, "Another one, " * 12]
        with tempfile.TemporaryDirectory() as model:
            tiny_llama.write(model, experts=experts)
            ports = [free_port() for _ in range(3)]
            with Engine(1, ports[0], ports[1:], model) as one, Engine(2, ports[1], ports[:1], model) as two, Engine(4, ports[2], ports[:1], model) as four:
                for e in (one, two, four):
                    e.ready()
                with concurrent.futures.ThreadPoolExecutor(4) as pool:  # together, as alone
                    texts = list(pool.map(lambda p: complete(four.port, p, 24, ignore_eos=True), prompts * 2))
                self.assertEqual(texts, [complete(four.port, p, 24, ignore_eos=True) for p in prompts] * 2)
                for prompt in prompts:
                    for decode in (two, four):
                        want = complete(decode.port, prompt, 24, ignore_eos=True)
                        for _ in range(2):
                            self.assertEqual(hand_over(one, decode, prompt, 24), want)
                    self.assertEqual(hand_over(two, one, prompt, 24), complete(one.port, prompt, 24, ignore_eos=True))
                self.assertEqual([total(e.port, "kv_hand_over_total") for e in (one, two, four)], [2, 4, 4])
                self.idle(one, two, four)

    def test_adapters_in_all_ranks(self):
        """Of matrices that are cut by rows and by columns: near what one process makes of them, and the same in every run and company."""
        def scores(port, model):  # of a given text, whose next words no last bit decides
            status, _, answer = post(port, "/v1/completions", {"model": model, "prompt": LETTERS, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 0})
            assert status == 200, answer
            return answer["choices"][0]["logprobs"]["token_logprobs"][1:]

        with tempfile.TemporaryDirectory() as folder:
            write_adapter(f"{folder}/a", 1, ("q_proj", "v_proj", "o_proj", "down_proj"), 2)
            write_adapter(f"{folder}/b", 2, scale=3)
            flags = ["--enable-lora", "--max-loras", "2", "--lora-modules", f"a={folder}/a", "--allow-runtime-lora-updating"]
            load = lambda e, name, path: request(e.port, "POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": path})
            with Engine(1, args=flags) as one, Engine(3, args=flags) as three:
                for e in (one, three):
                    e.ready()
                    self.assertEqual(load(e, "b", f"{folder}/b")[0], 200)
                base = scores(one.port, "m")
                for model in ("a", "b"):
                    want, got = scores(one.port, model), scores(three.port, model)
                    off = lambda x: sum(abs(p - q) for p, q in zip(x, want)) / len(want)
                    self.assertGreater(off(base), 0.1, f"{model} does nothing")
                    self.assertLess(off(got), off(base) / 4)
                asks = [(p, m) for p in (COUNT, LETTERS) for m in ("m", "a", "b")]
                say = lambda e, ask: complete(e.port, ask[0], 16, ignore_eos=True, model=ask[1])
                texts = [say(three, ask) for ask in asks]
                with concurrent.futures.ThreadPoolExecutor(len(asks)) as pool:
                    self.assertEqual(list(pool.map(lambda ask: say(three, ask), asks)), texts)
                self.assertEqual(load(three, "c", folder)[0], 404)
                os.makedirs(f"{folder}/broken")
                shutil.copy(f"{folder}/a/adapter_config.json", f"{folder}/broken")
                status, _, body = load(three, "c", f"{folder}/broken")
                self.assertEqual(status, 500, body)
                self.assertIn("adapter_model.safetensors", json.loads(body)["error"]["message"])
                self.assertEqual(request(three.port, "POST", "/v1/unload_lora_adapter", {"lora_name": "b"})[0], 200)
                self.assertEqual(post(three.port, "/v1/completions", {"model": "b", "prompt": "x"})[0], 404)
                self.assertEqual(load(three, "again", f"{folder}/b")[0], 200)
                self.assertEqual(complete(three.port, COUNT, 16, ignore_eos=True, model="again"), texts[2])
            with Engine(3, args=[*flags[:-1], f"b={folder}/b"]) as again:
                again.ready()
                self.assertEqual([say(again, ask) for ask in asks], texts)
            with Engine(3, args=[*flags[:-1], f"c={folder}/broken"]) as none:
                self.assertEqual(none.process.wait(60), 1)
                self.assertIn("--lora-modules c", open(none.log.name).read())

    def test_every_rank_gives_its_weights_back(self):
        def resident(pid):
            with open(f"/proc/{pid}/statm") as f:
                return int(f.read().split()[1]) * 4096 >> 20

        with tempfile.TemporaryDirectory() as folder:
            model = shutil.copy(harness.MODEL, folder)
            with Engine(3, model=model, kv=False, args=["--dev-mode"]) as e:
                e.ready()
                every = lambda: [resident(pid) for pid in (e.process.pid, *e.ranks())]
                do = lambda path: request(e.port, "POST", path)[0]
                want, full = complete(e.port, COUNT, 24), every()
                self.assertEqual(do("/sleep?level=2"), 200)
                asleep = every()
                for before, after in zip(full, asleep):
                    self.assertLess(after, before - 18, "MiB: a third of the weights is 28")
                self.assertEqual(total(e.port, "vllm:engine_sleep_state", "discard_all"), 1)
                self.assertEqual(do("/wake_up?tags=weights"), 200)
                for before, after in zip(asleep, every()):
                    self.assertGreater(after, before + 18)
                self.assertEqual(do("/wake_up"), 200)
                self.assertEqual(complete(e.port, COUNT, 24), want)
                self.assertEqual(do("/sleep?level=2"), 200)
                with open(model, "r+b") as f:  # other weights: no rank takes them for its own
                    head = f.read()
                    f.seek(len(head) // 2)
                    f.write(bytes(len(head) - len(head) // 2))
                status, _, body = request(e.port, "POST", "/wake_up")
                self.assertEqual(status, 500, body)
                status, body = get(e.port, "/health")
                self.assertEqual(status, 503)
                self.assertIn("the weights could not be loaded again", json.loads(body)["error"]["message"])
                with open(model, "r+b") as f:
                    f.write(head)
                self.assertEqual(do("/wake_up"), 200)
                self.assertEqual(get(e.port, "/health")[0], 200)
                self.assertEqual(complete(e.port, COUNT, 24), want)

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
        with tempfile.TemporaryDirectory() as model:
            tiny_llama.write(model, ffn=32, experts=4)
            with Engine(2, model=model) as e:
                self.assertEqual(e.process.wait(60), 1)
                self.assertIn("experts' feed-forward size 32", open(e.log.name).read())
