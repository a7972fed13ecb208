"""The very requests that lm-evaluation-harness (local-completions, tokenizer over HTTP) and `vllm bench serve` send, and what they make of the answers.
./test vllm runs the programs themselves (tests/vllm/clients.py)."""
import json, unittest

from harness import Stack, get, post, request, total

TEXTS = [("The capital of France is", " Paris"), ("The capital of France is", " bananas"), ("One, two, three, four,", " five"),
         ("One, two, three, four,", " eleven"), ("Grüße aus Köln: 42 €, naïve café,", " 東京")]


class Clients(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = Stack(prefill=0, decode=1, engine_args=["--enable-tokenizer-info-endpoint"]).__enter__()
        cls.port = cls.stack.engine_port("engine-0")
        cls.model = json.loads(get(cls.port, "/v1/models")[1])["data"][0]["id"]

    @classmethod
    def tearDownClass(cls):
        cls.stack.__exit__(None, None, None)

    def ask(self, path, body):
        status, _, answer = post(self.port, path, body)
        self.assertEqual(status, 200, answer)
        return answer

    def encode(self, text):
        return self.ask("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]

    def score(self, prompts, begins):
        """[(log-likelihood of what follows, is it the likeliest)...]"""
        answer = self.ask("/v1/completions", {"model": self.model, "prompt": prompts, "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True})
        out = []
        for choice, begin in zip(sorted(answer["choices"], key=lambda c: c["index"]), begins):
            chosen, top = (choice["logprobs"][k][begin:-1] for k in ("token_logprobs", "top_logprobs"))
            out.append((sum(chosen), all(mine == max(row.values()) for mine, row in zip(chosen, top))))
        return out

    def alone(self, ids, begin):
        rows = self.ask("/v1/completions", {"model": self.model, "prompt": ids, "temperature": 0, "max_tokens": 1, "prompt_logprobs": 1})["choices"][0]["prompt_logprobs"]
        mine = [rows[i][str(ids[i])] for i in range(begin, len(ids))]
        return sum(m["logprob"] for m in mine), all(m["rank"] == 1 for m in mine)

    def test_the_tokenizer_over_http(self):
        info = json.loads(get(self.port, "/tokenizer_info")[1])
        self.assertEqual([len(self.encode(info[k])) for k in ("bos_token", "eos_token")], [1, 1], info)
        self.assertIn("{%", info["chat_template"])
        for context, continuation in TEXTS:
            ids = self.encode(context + continuation)
            self.assertEqual(self.ask("/detokenize", {"tokens": ids})["prompt"], context + continuation)

    def test_log_likelihoods(self):
        prompts, begins = [self.encode(c + t) for c, t in TEXTS], [len(self.encode(c)) for c, _ in TEXTS]
        got = self.score(prompts, begins)
        for (likelihood, greedy), ids, begin in zip(got, prompts, begins):
            expected, first = self.alone(ids, begin)
            self.assertAlmostEqual(likelihood, expected, places=4)
            self.assertEqual(greedy, first)
        self.assertGreater(got[0][0], got[1][0] + 3, "Paris is no likelier than bananas")
        self.assertGreater(got[2][0], got[3][0] + 1, "five is no likelier than eleven")
        self.assertEqual(self.score([c + t for c, t in TEXTS], begins), got)  # tokenized_requests=False
        # A whole text is scored behind the first token of the vocabulary's own.
        text = self.encode(json.loads(get(self.port, "/tokenizer_info")[1])["bos_token"]) + self.encode("The ferry left the island before dawn.")
        self.assertAlmostEqual(self.score([text], [1])[0][0], self.alone(text, 1)[0], places=4)

    def test_answers_until(self):
        body = {"model": self.model, "prompt": [self.encode("Question: What do bees make?\nAnswer:")], "max_tokens": 12, "temperature": 0, "stop": ["\n", "<|im_end|>"], "seed": 1234}
        choice, = self.ask("/v1/completions", body)["choices"]
        self.assertNotIn("\n", choice["text"])
        self.assertGreater(len(choice["text"]), 2)

    def test_bench_serve(self):
        common = {"model": self.model, "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True}
        for path, body in (("/v1/completions", {"prompt": TEXTS[0][0], "repetition_penalty": 1.0, "max_tokens": 9, "logprobs": None}),
                           ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "text", "text": TEXTS[0][0]}]}], "max_completion_tokens": 9})):
            before = total(self.port, "vllm:generation_tokens_total")
            status, _, data = request(self.port, "POST", path, {**common, **body}, headers={"x-request-id": "bench-0", "Authorization": "Bearer none"})
            self.assertEqual(status, 200, data)
            events = [e.removeprefix("data: ") for e in data.decode().split("\n\n") if e]
            self.assertEqual(events[-1], "[DONE]")
            chunks = [json.loads(e) for e in events[:-1]]
            self.assertTrue(all("finish_reason" in c["choices"][0] for c in chunks[:-1]), chunks)
            usage, = [c["usage"] for c in chunks if not c["choices"]]
            self.assertEqual(usage["completion_tokens"], 9)
            self.assertEqual(total(self.port, "vllm:generation_tokens_total") - before, 9)


if __name__ == "__main__":
    unittest.main()
