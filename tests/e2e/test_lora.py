"""LoRA adapters on real processes: each answers in any company as alone, also when its prompt was read elsewhere; and requests of an adapter go to who runs it."""
import array, concurrent.futures, http.client, json, os, random, shutil, signal, struct, subprocess, tempfile, unittest

import harness
from harness import Stack, complete, get, post, total, wait_for
from prompts import prompts

PROMPTS = prompts()
LAYERS, HIDDEN, KV, RANK = 30, 576, 192, 4  # of the demo model


MODULES = {"q_proj": ("self_attn", HIDDEN, HIDDEN), "v_proj": ("self_attn", KV, HIDDEN), "o_proj": ("self_attn", HIDDEN, HIDDEN), "down_proj": ("mlp", HIDDEN, 1536)}


def write_adapter(folder, seed, modules=("q_proj", "v_proj"), scale=1):
    """A directory as PEFT writes it, of random values that change queries and values by some tens of percent."""
    rng, header, data = random.Random(seed), {}, b""
    for layer in range(LAYERS):
        for module in modules:
            of, rows, inputs = MODULES[module]
            for part, shape, size in (("A", [RANK, inputs], 0.04), ("B", [rows, RANK], 0.2 * scale)):
                values = array.array("f", (rng.uniform(-size, size) for _ in range(shape[0] * shape[1]))).tobytes()
                header[f"base_model.model.model.layers.{layer}.{of}.{module}.lora_{part}.weight"] = {
                    "dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
                data += values
    os.makedirs(folder)
    with open(f"{folder}/adapter_config.json", "w") as f:
        json.dump({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 8, "target_modules": list(modules), "bias": "none"}, f)
    text = json.dumps(header).encode()
    with open(f"{folder}/adapter_model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


class Lora(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="baton-e2e-")
        cls.paths = {name: f"{cls.folder}/{name}" for name in ("a", "b")}
        for seed, path in enumerate(cls.paths.values()):
            write_adapter(path, seed)
        cls.flags = ["--enable-lora", "--max-loras", "2", "--lora-modules", *[f"{n}={p}" for n, p in cls.paths.items()]]

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def test_mixed_batches_and_legs_answer_as_alone(self):
        asks = [(p, m) for p in PROMPTS[8:12] for m in (None, "a", "b")]
        say = lambda port, ask: complete(port, ask[0], 12, ignore_eos=True, **({"model": ask[1]} if ask[1] else {}))
        with Stack(prefill=0, decode=1, engine_args=self.flags) as s:
            alone = [say(s.port, ask) for ask in asks]
            self.assertGreater(len(set(alone)), 2 * len(asks) // 3, "the adapters change nothing")
            with concurrent.futures.ThreadPoolExecutor(len(asks)) as pool:
                self.assertEqual(list(pool.map(lambda ask: say(s.port, ask), asks)), alone)
            cards = {c["id"]: c for c in json.loads(get(s.port, "/v1/models")[1])["data"]}
            self.assertEqual((cards["a"]["root"], cards["a"]["parent"]), (self.paths["a"], next(c["id"] for c in cards.values() if c["parent"] is None)))
        with Stack(engine_args=self.flags) as s:
            decode = s.engine_port("decode-0")
            for ask, want in zip(asks, alone):
                before = total(decode, "kv_hand_over_total")
                self.assertEqual(say(s.port, ask), want, ask)
                self.assertEqual(total(decode, "kv_hand_over_total"), before + 1, ask)

    def test_loaded_at_run_time_and_refused_in_words(self):
        os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
        try:
            stack = Stack(prefill=0, decode=1, engine_args=["--enable-lora"])
            with stack as s:
                port = s.engine_port("engine-0")
                self.assertEqual(post(port, "/v1/completions", {"model": "a", "prompt": "x"})[0], 404)
                status, _, body = harness.request(port, "POST", "/v1/load_lora_adapter", {"lora_name": "a", "lora_path": self.paths["a"]})
                self.assertEqual((status, body), (200, b"Success: LoRA adapter 'a' added successfully."))
                self.assertEqual(post(port, "/v1/completions", {"model": "a", "prompt": "x", "max_tokens": 2})[0], 200)
                status, _, body = post(port, "/v1/load_lora_adapter", {"lora_name": "c", "lora_path": self.folder})
                self.assertEqual((status, body["error"]["message"]), (404, f"Loading lora c failed: No adapter found for {self.folder}"))
                self.assertEqual(harness.request(port, "POST", "/v1/unload_lora_adapter", {"lora_name": "a"})[0], 200)
                self.assertEqual(post(port, "/v1/completions", {"model": "a", "prompt": "x"})[0], 404)
        finally:
            del os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"]


class Affinity(unittest.TestCase):
    """Two engines behind a router that scores by adapters alone."""

    def start(self, *command):
        process = subprocess.Popen([f"{harness.BIN}/{command[0]}", *command[1:]], stdout=self.log, stderr=subprocess.STDOUT)
        self.processes.append(process)

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="baton-e2e-")
        self.log = open(f"{self.dir}/log", "w+")
        self.processes, self.streams = [], []
        self.ports = [harness.free_port() for _ in range(3)]
        modules = []
        for seed, name in enumerate("ab"):
            write_adapter(f"{self.dir}/{name}", seed)
            modules.append(f"{name}={self.dir}/{name}")
        for port in self.ports[:2]:
            self.start("baton-engine", "serve", harness.MODEL, "--port", str(port), "--served-model-name", "m", "--threads", "1", "--max-model-len", "4096",
                       "--enable-lora", "--max-loras", "1", "--lora-modules", *modules)
        for port in self.ports[:2]:
            wait_for(lambda: get(port, "/health")[0] == 200, 120, "an engine to load")
        with open(f"{self.dir}/endpoints.json", "w") as f:
            json.dump({"endpoints": [{"name": f"e{i}", "address": "127.0.0.1", "port": p} for i, p in enumerate(self.ports[:2])]}, f)
        with open(f"{self.dir}/config.yaml", "w") as f:
            f.write("""
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: lora-affinity-scorer
- type: max-score-picker
- type: single-profile-handler
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: lora-affinity-scorer
  - pluginRef: max-score-picker
""")
        self.http = self.ports[2]
        self.start("baton-router", "--http-port", str(self.http), "--grpc-port", "0", "--grpc-health-port", "0", "--metrics-port", "0", "--drain-timeout", "1s",
                   "--endpoints", f"{self.dir}/endpoints.json", "--config-file", f"{self.dir}/config.yaml")
        wait_for(lambda: get(self.http, "/v1/models")[0] == 200 and total(self.http, "baton_gateway_endpoint_up") == 2, 60, "the router to know the engines")

    def tearDown(self):
        for stream in self.streams:
            stream.close()
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        self.log.close()
        shutil.rmtree(self.dir)

    def state(self):
        state = json.loads(get(self.http, "/debug/plugins/state")[1])
        return state["pools"][0] if "pools" in state else state

    def occupy(self, port, model):
        """A stream that runs until the test is over."""
        stream = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        body = {"model": model, "prompt": "Once", "max_tokens": 4000, "ignore_eos": True, "stream": True}
        stream.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        self.streams.append(stream)
        self.assertEqual(stream.getresponse().status, 200)

    def test_requests_of_an_adapter_go_to_who_runs_it(self):
        for port, model in zip(self.ports, "ba"):
            self.occupy(port, model)
        runs = lambda: [e["lora"] for e in self.state()["endpoints"]] == [["b"], ["a"]]
        wait_for(runs, 60, "the router to see the adapters")
        for model, port in [("a", self.ports[1]), ("b", self.ports[0])] * 3:
            complete(self.http, f"A request of {model}", 2, model=model)
            self.assertEqual(self.state()["decisions"][0]["destination"], f"127.0.0.1:{port}", model)
        self.assertTrue(runs(), "the streams ended too early to tell")
