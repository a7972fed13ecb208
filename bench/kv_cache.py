#!/usr/bin/env python3
"""What a KV cache of 8 bits costs a real model: the same text through one engine for each --kv-cache-dtype, every token's probability and the
likeliest token against those of the bf16 cache; and greedy answers.   bench/kv_cache.py [--dtypes fp8,int8_per_token_head] [--windows 8] [--tokens 1024]
Prints for each: KV bytes a token, perplexity, root mean square of the difference of log-probabilities, share of places with the same likeliest
token, and of greedy answers of 32 tokens that are the same to the end."""
import argparse, math, pathlib, sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/e2e"))
import harness
from harness import Stack, complete, post
from prompts import prompts

DOCS = ["docs/ARCHITECTURE.md", "docs/life_of_a_request.md", "docs/failure_contract.md", "docs/sidecar.md", "docs/gateway.md", "docs/scaling.md"]


def read(port, windows):
    """[(log-probability, likeliest token)] of every token of the windows but their first."""
    out = []
    for ids in windows:
        status, _, reply = post(port, "/v1/completions", {"prompt": ids, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1})
        assert status == 200, reply
        found = reply["choices"][0]["logprobs"]
        tops = [max(t, key=t.get) for t in found["top_logprobs"][1:len(ids)]]
        out += zip(found["token_logprobs"][1:len(ids)], tops)
    return out


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bin", default=str(ROOT / "build/release/bin"))
    p.add_argument("--model", default=str(ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    p.add_argument("--dtypes", default="fp8,fp8_e5m2,int8_per_token_head,fp8_per_token_head")
    p.add_argument("--text", nargs="*", default=[str(ROOT / d) for d in DOCS], help="files whose text is read")
    p.add_argument("--windows", type=int, default=8, help="pieces of the text, each a request of its own")
    p.add_argument("--tokens", type=int, default=1024, help="of a window")
    p.add_argument("--answers", type=int, default=20, help="greedy answers; 0 = none")
    a = p.parse_args()
    harness.BIN, harness.MODEL = a.bin, a.model
    text = "\n".join(pathlib.Path(t).read_text() for t in a.text)
    asked = prompts()[:a.answers]
    base = None
    print(f"{'':<22}{'bytes':>8}{'perplexity':>12}{'rms':>8}{'top-1':>8}{'answers':>9}")
    for dtype in ["bfloat16", *a.dtypes.split(",")]:
        with Stack(prefill=0, decode=1, engine_args=[f"--kv-cache-dtype={dtype}", "--kv-cache-memory-bytes=500000000", "--no-enable-prefix-caching"]) as s:
            port = s.engine_port("engine-0")
            ids = post(port, "/tokenize", {"prompt": text})[2]["tokens"]
            windows = [ids[i * a.tokens:(i + 1) * a.tokens] for i in range(min(a.windows, len(ids) // a.tokens))]
            seen = read(port, windows)
            answers = [complete(port, q, 32, ignore_eos=True) for q in asked]
            blocks = next(k for k in harness.metrics(port)["vllm:cache_config_info"])
            blocks = int(blocks.split('num_gpu_blocks="')[1].split('"')[0])
        base = base or (seen, answers)
        perplexity = math.exp(-sum(lp for lp, _ in seen) / len(seen))
        rms = math.sqrt(sum((x[0] - y[0]) ** 2 for x, y in zip(seen, base[0])) / len(seen))
        same = sum(x[1] == y[1] for x, y in zip(seen, base[0])) / len(seen)
        alike = sum(x == y for x, y in zip(answers, base[1]))
        print(f"{dtype:<22}{500_000_000 / blocks / 16:>8.0f}{perplexity:>12.3f}{rms:>8.4f}{same:>8.2%}{f'{alike}/{len(asked)}':>9}", flush=True)


if __name__ == "__main__":
    main()
