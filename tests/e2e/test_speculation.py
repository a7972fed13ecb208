"""Speculative decoding by prompt lookup: the answers of an engine that drafts are those of one that does not, whatever is asked, alone,
in company and through P/D."""
import concurrent.futures, json, unittest

from harness import Stack, post, total
from prompts import SENTENCES

SPECULATION = json.dumps({"method": "ngram", "num_speculative_tokens": 6, "prompt_lookup_min": 2, "prompt_lookup_max": 4})
TEXT = " ".join(SENTENCES[:2] + SENTENCES[9:11])


def bodies():
    """Prompts that ask for what they say, and some that do not, with the parameters that change what is sampled."""
    ask = lambda text: f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    prompts = [ask(f"Repeat this text word for word:\n{TEXT}"), ask(f"Fix the spelling of this text and repeat it:\n{TEXT}"),
               "1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2, 3,", ask("Say something surprising about lighthouses.")]
    extras = [{}, {"logprobs": 2}, {"repetition_penalty": 1.1, "frequency_penalty": 0.2}, {"stop": ["one", "3"]}, {"min_tokens": 20},
              {"temperature": 0.7, "seed": 5}, {"temperature": 1, "seed": 6, "n": 2, "top_p": 0.9}, {"logit_bias": {"28": -5}}]
    return [{"prompt": p, "max_tokens": 48, "temperature": 0, **e} for i, p in enumerate(prompts) for e in extras[i % 2 :: 2]]


def answers(port, workers):
    def one(body):
        status, _, answer = post(port, "/v1/completions", body)
        assert status == 200, answer
        return [(c["text"], c["finish_reason"], c["stop_reason"], c["logprobs"]) for c in answer["choices"]], answer["usage"]["completion_tokens"]

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, bodies()))


class Speculation(unittest.TestCase):
    def compare(self, want, got):
        for body, w, g in zip(bodies(), want, got):
            self.assertEqual(w, g, body)

    def test_answers_are_the_same_and_come_in_fewer_steps(self):
        with Stack(0, 1) as plain:
            want = answers(plain.engine_port("engine-0"), 4)
        with Stack(0, 1, engine_args=[f"--speculative-config={SPECULATION}"]) as s:
            port = s.engine_port("engine-0")
            self.compare(want, answers(port, 1))
            accepted = total(port, "vllm:spec_decode_num_accepted_tokens_total")
            self.assertGreater(accepted, 0)  # how many depends on what a row costs here and now
            self.assertEqual(accepted, total(port, "vllm:spec_decode_num_accepted_tokens_per_pos_total"))
            self.assertGreaterEqual(total(port, "vllm:spec_decode_num_draft_tokens_total"), accepted)
            self.assertGreater(total(port, "vllm:spec_decode_num_drafts_total"), 0)
            self.compare(want, answers(port, 8))
        with Stack(1, 1, engine_args=[f"--speculative-config={SPECULATION}"]) as s:
            self.compare(want, answers(s.port, 3))
            self.assertGreater(total(s.engine_port("decode-0"), "vllm:spec_decode_num_accepted_tokens_total"), 0)
