"""The official client, unchanged, against every door: engine, sidecar, gateway."""
import json, unittest

import openai

from harness import Stack, request, total, wait_for


class OpenAiClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = Stack(prefill=1, decode=1).__enter__()
        cls.doors = {"engine": cls.stack.engine_port("decode-0"), "sidecar": cls.stack.endpoints["decode-0"]["port"], "gateway": cls.stack.port}

    @classmethod
    def tearDownClass(cls):
        cls.stack.__exit__(None, None, None)

    def each(self, check):
        for name, port in self.doors.items():
            with self.subTest(door=name):
                check(openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=60))

    def test_models(self):
        def check(c):
            models = c.models.list().data
            self.assertEqual([m.root for m in models], [models[0].root] * 2, "the file's name and its path")
            self.assertEqual(models[0].owned_by, "vllm")
            self.assertEqual(c.models.retrieve(models[0].id).id, models[0].id)

        self.each(check)

    def test_chat(self):
        answers = set()
        def check(c):
            r = c.chat.completions.create(model=c.models.list().data[0].id, messages=[{"role": "user", "content": "Name three colours."}],
                                          max_tokens=20, temperature=0)
            self.assertEqual(r.choices[0].message.role, "assistant")
            self.assertIn(r.choices[0].finish_reason, ("stop", "length"))
            self.assertGreater(r.usage.completion_tokens, 0)
            answers.add(r.choices[0].message.content)

        self.each(check)
        self.assertEqual(len(answers), 1, answers)

    def test_chat_stream(self):
        def check(c):
            model = c.models.list().data[0].id
            ask = dict(model=model, messages=[{"role": "user", "content": "Count from one to five."}], max_tokens=24, temperature=0)
            whole = c.chat.completions.create(**ask).choices[0].message.content
            chunks = list(c.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
            self.assertEqual("".join(k.choices[0].delta.content or "" for k in chunks if k.choices), whole)
            self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
            self.assertGreater(chunks[-1].usage.total_tokens, 10)
            self.assertGreater(len(chunks), 5)

        self.each(check)

    def test_completion_logprobs_n_and_stop(self):
        def check(c):
            model = c.models.list().data[0].id
            r = c.completions.create(model=model, prompt="The capital of France is", max_tokens=8, temperature=0, logprobs=2)
            lp = r.choices[0].logprobs
            self.assertEqual(len(lp.tokens), r.usage.completion_tokens)
            self.assertEqual(max(lp.top_logprobs[0].values()), lp.token_logprobs[0])
            r = c.completions.create(model=model, prompt="Once upon a time", max_tokens=8, n=3, temperature=0.9, seed=7)
            self.assertEqual([x.index for x in r.choices], [0, 1, 2])
            again = c.completions.create(model=model, prompt="Once upon a time", max_tokens=8, n=3, temperature=0.9, seed=7)
            self.assertEqual([x.text for x in r.choices], [x.text for x in again.choices])
            r = c.completions.create(model=model, prompt="1, 2, 3, 4,", max_tokens=30, temperature=0, stop=["7"])
            self.assertNotIn("7", r.choices[0].text)

        self.each(check)

    def test_errors(self):
        def check(c):
            model = c.models.list().data[0].id
            with self.assertRaises(openai.NotFoundError) as e:
                c.chat.completions.create(model="no-such-model", messages=[{"role": "user", "content": "x"}])
            self.assertIn("does not exist", str(e.exception))
            with self.assertRaises(openai.BadRequestError):
                c.chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}], temperature=-1)
            with self.assertRaises(openai.BadRequestError) as e:
                c.completions.create(model=model, prompt="x " * 9000, max_tokens=5)
            self.assertIn("maximum context length is 8192 tokens", str(e.exception))

        self.each(check)

    def test_cancel_frees_the_engine(self):
        def check(c):
            model = c.models.list().data[0].id
            stream = c.chat.completions.create(model=model, messages=[{"role": "user", "content": "Write a very long story."}], max_tokens=4000,
                                               stream=True, temperature=0, extra_body={"ignore_eos": True})
            next(iter(stream))
            port = self.doors["engine"]
            wait_for(lambda: total(port, "vllm:num_requests_running") == 1, 5, "the request to run")
            stream.close()
            wait_for(lambda: total(port, "vllm:num_requests_running") == 0 and total(port, "vllm:kv_cache_usage_perc") == 0, 10,
                     "the cancelled request to leave the engine")

        self.each(check)

    def test_key_order_of_the_guides(self):
        _, _, body = request(self.stack.port, "POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2})
        r = json.loads(body)
        newer = {"prompt_text", "ec_transfer_params", "metrics", "reasoning"}  # of vLLM 0.32, null
        guides = lambda answer: [k for k in answer if k not in newer]
        self.assertEqual(guides(r), ["id", "object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage",
                                     "prompt_logprobs", "prompt_token_ids", "kv_transfer_params"])
        self.assertEqual(guides(r["choices"][0]["message"]), ["role", "content", "refusal", "annotations", "audio", "function_call", "tool_calls",
                                                              "reasoning_content"])
        self.assertIsNone(r["kv_transfer_params"])
        self.assertIsNone(r["usage"]["prompt_tokens_details"])

    def test_waterfall_and_workers_are_named(self):
        _, headers, _ = request(self.stack.port, "POST", "/v1/completions", {"prompt": "A fresh prompt about tugboats " * 8, "max_tokens": 2})
        self.assertIn("x-baton-ttft", headers)
        for part in ("queue=", "prefill", "transfer=", "first_step="):
            self.assertIn(part, headers["x-baton-ttft"])
        self.assertIn("prefill=", headers["x-baton-worker"])
