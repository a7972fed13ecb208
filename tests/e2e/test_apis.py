"""The other APIs of the engine, with real clients: /v1/responses and /v1/embeddings by the official one, /v1/messages and
/inference/v1/generate by HTTP, alone and through prefill and decode on different workers."""
import json, re, ssl, struct, subprocess, tempfile, unittest, urllib.request

import openai

import harness
from harness import Stack, request, total
from prompts import prompts

ASK = prompts()[40]  # long enough for a hand-over to pay


def events(body):
    """[(event, data)] of a stream."""
    out = []
    for block in body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line)
        if fields.get("data") not in (None, "[DONE]"):
            out.append((fields.get("event"), json.loads(fields["data"])))
    return out


class Apis(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = Stack(prefill=1, decode=1, engine_args=["--no-enable-prefix-caching"]).__enter__()
        cls.decode = cls.stack.engine_port("decode-0")
        cls.doors = {"engine": cls.decode, "sidecar": cls.stack.endpoints["decode-0"]["port"], "gateway": cls.stack.port}
        cls.model = json.loads(request(cls.decode, "GET", "/v1/models")[2])["data"][0]["id"]

    @classmethod
    def tearDownClass(cls):
        cls.stack.__exit__(None, None, None)

    def each(self, check):
        """check(port) gives what must be the same through every door; behind the gateway it must be a hand-over."""
        answers = {}
        for name, port in self.doors.items():
            with self.subTest(door=name):
                before = total(self.decode, "kv_hand_over_total")
                answers[name] = check(port)
                if name == "gateway":
                    self.assertGreater(total(self.decode, "kv_hand_over_total"), before, "no hand-over")
        self.assertEqual(len({json.dumps(a) for a in answers.values()}), 1, answers)

    def client(self, port):
        return openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=60)

    def test_responses(self):
        def check(port):
            ask = dict(model=self.model, input=ASK, instructions="You are a painter.", max_output_tokens=16, temperature=0)
            r = self.client(port).responses.create(**ask, metadata={"k": "v"})
            self.assertEqual((r.status, r.metadata, r.usage.output_tokens), ("incomplete", {"k": "v"}, 16))
            seen, text = [], ""
            with self.client(port).responses.stream(**ask) as stream:
                for event in stream:
                    seen.append(event.type)
                    text += event.delta if event.type == "response.output_text.delta" else ""
                final = stream.get_final_response()
            self.assertEqual(seen[:2] + seen[-1:], ["response.created", "response.in_progress", "response.completed"])
            self.assertEqual(text, r.output_text)
            self.assertEqual(final.output_text, r.output_text)
            self.assertGreater(len(r.output_text), 10)
            return r.output_text

        self.each(check)

    def test_responses_refused(self):
        with self.assertRaises(openai.BadRequestError):
            self.client(self.decode).responses.create(model=self.model, input=ASK, background=True)
        with self.assertRaises(openai.NotFoundError):
            self.client(self.decode).responses.retrieve("resp_1")

    def test_responses_in_the_background(self):
        with Stack(prefill=0, decode=1, engine_args=["--enable-responses-api-store"]) as s:
            port = s.engine_port(next(iter(s.endpoints)))
            client, model = self.client(port), json.loads(request(port, "GET", "/v1/models")[2])["data"][0]["id"]
            ask = dict(model=model, input=ASK, max_output_tokens=40, temperature=0)
            want = client.responses.create(**ask).output_text
            seen = []
            with client.responses.create(**ask, background=True, stream=True) as stream:
                for event in stream:
                    seen.append(event)
                    if event.type == "response.output_text.delta":
                        break  # the client leaves
            id, last = seen[0].response.id, seen[-1].sequence_number
            self.assertEqual([e.sequence_number for e in seen], list(range(last + 1)))
            with client.responses.retrieve(id, stream=True, starting_after=last) as stream:
                rest = list(stream)
            self.assertEqual([e.sequence_number for e in rest], list(range(last + 1, last + 1 + len(rest))))
            self.assertEqual(rest[-1].type, "response.completed")
            self.assertEqual("".join(e.delta for e in seen + rest if e.type == "response.output_text.delta"), want)
            self.assertEqual(rest[-1].response.output_text, want)
            self.assertEqual(client.responses.retrieve(id).output_text, want)
            with client.responses.retrieve(id, stream=True) as stream:
                self.assertEqual([e.type for e in stream], [e.type for e in seen + rest])
            plain = client.responses.create(**ask)
            with self.assertRaises(openai.BadRequestError):
                client.responses.retrieve(plain.id, stream=True)

    def test_messages(self):
        def check(port):
            ask = {"model": self.model, "max_tokens": 16, "temperature": 0, "system": "You are a painter.",
                   "messages": [{"role": "user", "content": [{"type": "text", "text": ASK}]}]}
            status, _, body = request(port, "POST", "/v1/messages", ask)
            self.assertEqual(status, 200, body)
            r = json.loads(body)
            self.assertEqual((r["type"], r["role"], r["stop_reason"]), ("message", "assistant", "max_tokens"))
            got = events(request(port, "POST", "/v1/messages", {**ask, "stream": True})[2])
            self.assertEqual([e for e, _ in got if e != "content_block_delta"],
                             ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"])
            text = "".join(d["delta"]["text"] for e, d in got if e == "content_block_delta")
            self.assertEqual(text, r["content"][0]["text"])
            count = json.loads(request(port, "POST", "/v1/messages/count_tokens", {k: ask[k] for k in ("model", "system", "messages")})[2])
            self.assertEqual(count["input_tokens"], r["usage"]["input_tokens"])
            return text

        self.each(check)

    def test_tokens_in_tokens_out(self):
        ids = json.loads(request(self.decode, "POST", "/tokenize", {"prompt": ASK})[2])["tokens"]

        def check(port):
            status, _, body = request(port, "POST", "/inference/v1/generate", {"token_ids": ids, "sampling_params": {"max_tokens": 8, "temperature": 0}})
            self.assertEqual(status, 200, body)
            return json.loads(body)["choices"][0]["token_ids"]

        self.each(check)


class Embeddings(unittest.TestCase):
    def test_embeddings(self):
        with Stack(prefill=0, decode=1, engine_args=["--runner", "pooling", "--pooler-config", '{"pooling_type":"MEAN"}']) as s:
            port = next(iter(s.endpoints.values()))["port"]
            client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=60)
            model = client.models.list().data[0].id
            texts = ["A cat sat on the mat.", "The kitten is sitting on the rug.", "Interest rates rose by two percent."]
            r = client.embeddings.create(model=model, input=texts)  # base64 below
            plain = client.embeddings.create(model=model, input=texts, encoding_format="float")
            self.assertGreater(r.usage.prompt_tokens, 15)
            for a, b in zip(r.data, plain.data):
                self.assertEqual(a.embedding, [struct.unpack("f", struct.pack("f", x))[0] for x in b.embedding])
                self.assertAlmostEqual(sum(x * x for x in b.embedding), 1, places=4)
            near = lambda i, j: sum(x * y for x, y in zip(plain.data[i].embedding, plain.data[j].embedding))
            self.assertGreater(near(0, 1), near(0, 2), "cats are nearer to kittens than to interest rates")
            with self.assertRaises(openai.BadRequestError):
                client.completions.create(model=model, prompt="x")


class Sleep(unittest.TestCase):
    def test_level_two_gives_the_weights_back(self):
        with Stack(prefill=0, decode=1, engine_args=["--dev-mode"]) as s:
            name = next(iter(s.endpoints))
            port = s.engine_port(name)
            ask = {"prompt": ASK, "max_tokens": 16, "temperature": 0}
            text = lambda: json.loads(request(port, "POST", "/v1/completions", ask)[2])["choices"][0]["text"]

            def resident():
                with open(f"/proc/{s.children()[name][0]}/statm") as f:
                    return int(f.read().split()[1]) * 4096 >> 20

            want, full = text(), resident()
            self.assertEqual(request(port, "POST", "/sleep?level=2")[0], 200)
            asleep = resident()
            self.assertLess(asleep, full - 60, "MiB: the weights alone are 80 and more")
            self.assertEqual(request(port, "POST", "/v1/completions", ask)[0], 503)
            self.assertEqual(request(port, "POST", "/wake_up?tags=weights")[0], 200)
            self.assertGreater(resident(), asleep + 60)
            self.assertEqual(json.loads(request(port, "GET", "/is_sleeping")[2]), {"is_sleeping": True})
            self.assertEqual(request(port, "POST", "/wake_up?tags=kv_cache")[0], 200)
            self.assertEqual(text(), want)


class OverTls(unittest.TestCase):
    def test_https_under_a_path(self):
        with tempfile.TemporaryDirectory() as folder:
            cert, key = f"{folder}/c.pem", f"{folder}/k.pem"
            subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-addext",
                            "subjectAltName=DNS:localhost", "-days", "2", "-keyout", key, "-out", cert], check=True, capture_output=True)
            engine = subprocess.Popen([f"{harness.BIN}/baton-engine", "serve", harness.MODEL, "--host", "127.0.0.1", "--port", "0", "--threads", "1",
                                       "--num-gpu-blocks-override", "64", "--ssl-certfile", cert, "--ssl-keyfile", key, "--root-path", "/llm",
                                       "--enable-tokenizer-info-endpoint"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            try:
                lines = []
                for line in engine.stdout:
                    lines.append(line)
                    ready = re.search(r"ready port=(\d+)", line)
                    if ready:
                        break
                else:
                    self.fail("".join(lines))
                port, trust = int(ready.group(1)), ssl.create_default_context(cafile=cert)
                get = lambda path: urllib.request.urlopen(f"https://localhost:{port}{path}", context=trust, timeout=60).read()
                self.assertEqual(get("/llm/health"), b"")
                self.assertIn(b"/v1/responses", get("/llm/docs"))
                self.assertIn("chat_template", json.loads(get("/llm/tokenizer_info")))
                with self.assertRaises(OSError):  # it speaks nothing but TLS
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=60)
            finally:
                engine.terminate()
                engine.communicate(timeout=60)
            self.assertEqual(engine.returncode, 0)
