"""Precise prefix routing on real processes: engines say what they hold, and text prompts go where their blocks are."""
import json, signal, subprocess, tempfile, unittest

import harness
from harness import complete, free_port, get, post, total, wait_for

PROMPT = "The keeper of the lighthouse wrote every evening what the sea had brought: " + ", ".join(f"a crate number {i}" for i in range(60))


class Engine:
    """One baton-engine that publishes its KV events to the router's socket, under its address."""

    def __init__(self, events_port):
        self.port = free_port()
        config = {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": f"tcp://127.0.0.1:{events_port}", "topic": f"kv@127.0.0.1:{self.port}@m"}
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([f"{harness.BIN}/baton-engine", "serve", harness.MODEL, "--port", str(self.port), "--served-model-name", "m", "--threads", "1",
                                         "--max-model-len", "2048", "--kv-events-config", json.dumps(config)], stdout=self.log, stderr=subprocess.STDOUT)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.log.close()


class Precise(unittest.TestCase):
    def start_router(self, token_producer):
        dir = tempfile.mkdtemp(prefix="baton-e2e-")
        with open(f"{dir}/endpoints.json", "w") as f:
            json.dump({"endpoints": [{"name": f"e{i}", "address": "127.0.0.1", "port": e.port} for i, e in enumerate(self.engines)]}, f)
        with open(f"{dir}/config.yaml", "w") as f:
            f.write(f"""
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: precise-prefix-cache-producer
  parameters:
    tokenProcessorConfig: {{blockSizeTokens: 16}}
    kvEventsConfig: {{zmqEndpoint: "tcp://*:{self.events_port}", topicFilter: "kv@"}}
- type: token-producer
  parameters: {token_producer}
- type: prefix-cache-scorer
- type: max-score-picker
- type: single-profile-handler
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: prefix-cache-scorer
  - pluginRef: max-score-picker
""")
        self.http = free_port()
        self.router = subprocess.Popen([f"{harness.BIN}/baton-router", "--http-port", str(self.http), "--grpc-port", "0", "--grpc-health-port", "0", "--metrics-port", "0", "--drain-timeout", "1s",
                                        "--endpoints", f"{dir}/endpoints.json", "--config-file", f"{dir}/config.yaml"], stdout=self.router_log, stderr=subprocess.STDOUT)
        wait_for(lambda: get(self.http, "/v1/models")[0] == 200 and total(self.http, "baton_gateway_endpoint_up") == len(self.engines), 60, "the router to know the engines")

    def setUp(self):
        self.events_port = free_port()
        self.router = None
        self.router_log = tempfile.TemporaryFile("w+")
        self.engines = [Engine(self.events_port) for _ in range(3)]
        for e in self.engines:
            wait_for(lambda: get(e.port, "/health")[0] == 200, 120, "an engine to load")

    def tearDown(self):
        if self.router:
            self.router.send_signal(signal.SIGTERM)
            self.router.wait(60)
        for e in self.engines:
            e.stop()
        self.router_log.close()

    def state(self):
        state = json.loads(get(self.http, "/debug/plugins/state")[1])
        return state["pools"][0] if "pools" in state else state

    def hears_everybody(self):
        """ZeroMQ drops what is published before the router listens: until it does, each engine is given something new to say."""
        applied = lambda: self.state()["kv_events"]["applied"]
        for i, engine in enumerate(self.engines):
            before, turn = applied(), iter(range(10_000))

            def said():
                complete(engine.port, f"Engine {i} says {next(turn)} times that it is there, and that is that: " * 4, 1, model="m")
                return applied() > before

            wait_for(said, 60, f"the events of engine {i}")

    def check(self, send, own):
        """`own` makes one engine hold the prompt, behind the router's back; then the router sends it there."""
        self.hears_everybody()
        holder = self.engines[1]
        applied = self.state()["kv_events"]["applied"]
        own(holder)
        wait_for(lambda: self.state()["kv_events"]["applied"] > applied, 30, "what the engine stored")
        for _ in range(4):
            send()
            d = self.state()["decisions"][0]
            self.assertEqual(d["destination"], f"127.0.0.1:{holder.port}", d)
            self.assertTrue(d["precise"], d)
            self.assertGreater(d["cached_tokens"], 200, d)

    def test_text_by_a_tokenizer_of_the_routers_own(self):
        self.start_router(json.dumps({"local": {"path": harness.MODEL}}))
        self.check(lambda: complete(self.http, PROMPT, 2, model="m"), lambda e: complete(e.port, PROMPT, 2, model="m"))
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tell me of it. " + PROMPT}]
        ask = lambda port: self.assertEqual(post(port, "/v1/chat/completions", {"model": "m", "messages": messages, "max_tokens": 2})[0], 200)
        self.check(lambda: ask(self.http), lambda e: ask(e.port))
        self.assertGreater(total(self.http, "llm_d_epp_tokenizer_requests_total", 'outcome="ok"'), 0)

    def test_text_by_asking_the_workers(self):
        self.start_router("{kind: workers}")
        self.check(lambda: complete(self.http, PROMPT, 2, model="m"), lambda e: complete(e.port, PROMPT, 2, model="m"))

    def test_a_missing_tokenizer_costs_hits_and_no_answers(self):
        self.start_router(json.dumps({"local": {"path": "/nowhere"}}))
        for _ in range(3):
            complete(self.http, PROMPT, 2, model="m")
        self.assertFalse(self.state()["decisions"][0]["precise"])
        self.assertGreaterEqual(total(self.http, "llm_d_epp_tokenizer_requests_total", 'outcome="no_tokenizer"'), 3)
