#!/usr/bin/env python3
"""What a client sees of the hand-over: TTFT through P/D minus aggregated TTFT of the same prompts, interleaved in one run, with every engine on the
same number of threads, with the KV pushed while prefill computes it and with one leg after the other.
   bench/handover.py [--tokens 512,2000] [--rounds 15] [--transport shm,tcp]
Also prints the engine's own share (x-baton-ttft: transfer) and the bytes moved against a memcpy of as many bytes in this run."""
import argparse, contextlib, ctypes, http.client, json, os, pathlib, re, statistics, sys, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/e2e"))
import harness
from harness import Stack, post, total


def ttft_ms(port, prompt):
    """Milliseconds until the first streamed chunk, and the response's waterfall."""
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    body = json.dumps({"prompt": prompt, "max_tokens": 4, "temperature": 0, "stream": True, "ignore_eos": True})
    began = time.perf_counter()
    c.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    r = c.getresponse()
    r.readline()
    elapsed = (time.perf_counter() - began) * 1e3
    waterfall = dict(re.findall(r"(\w+)=([\d.]+)", r.getheader("x-baton-ttft") or ""))
    r.read()
    c.close()
    return elapsed, {k: float(v) for k, v in waterfall.items()}


def memcpy_gb_s(size=64 << 20):
    a, b = ctypes.create_string_buffer(size), ctypes.create_string_buffer(size)
    times = []
    for _ in range(7):
        began = time.perf_counter()
        ctypes.memmove(b, a, size)
        times.append(time.perf_counter() - began)
    return size / statistics.median(times) / 1e9


def words(n, salt):
    return " ".join(f"{salt}{i * 7919 % 9973}" for i in range(n))


def prompt_of(port, tokens, salt):
    """Text of exactly `tokens` tokens that no cache has seen."""
    ids = post(port, "/tokenize", {"prompt": words(tokens, salt), "add_special_tokens": False})[2]["tokens"][:tokens]
    return ids


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bin", default=str(ROOT / "build/release/bin"))
    p.add_argument("--model", default=str(ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    p.add_argument("--tokens", default="512,2000")
    p.add_argument("--rounds", type=int, default=15)
    p.add_argument("--transport", default="shm,tcp")
    p.add_argument("--threads", default="2")
    p.add_argument("--engine-arg", action="append", default=[], help="a further flag of every engine; --num-gpu-blocks-override=400 reuses blocks soon")
    a = p.parse_args()
    harness.BIN, harness.MODEL = os.path.realpath(a.bin), os.path.realpath(a.model)
    copy = memcpy_gb_s()
    print(f"memcpy here: {copy:.1f} GB/s; {a.rounds} interleaved rounds, medians; {a.threads} threads an engine")
    print(f"{'tokens':>6} {'path':>5} {'aggregated':>11} {'push':>9} {'hand-over':>10} {'pull':>9} {'hand-over':>10} {'transfer':>9} {'MiB':>6} {'bytes/memcpy':>13}")
    for transport in a.transport.split(","):
        with contextlib.ExitStack() as stacks:
            pd = lambda push: stacks.enter_context(
                Stack(1, 1, args=["--threads", a.threads, "--kv-transport", transport, "--kv-push", push], engine_args=a.engine_arg))
            one = stacks.enter_context(Stack(0, 1, args=["--threads", a.threads], engine_args=a.engine_arg))
            push, pull = pd("auto"), pd("off")
            decode = pull.engine_port("decode-0")
            for tokens in map(int, a.tokens.split(",")):
                took = {one: [], push: [], pull: []}
                for s in took:
                    ttft_ms(s.port, prompt_of(decode, tokens, "w"))
                transfer, before = [], total(decode, "vllm:nixl_bytes_transferred_sum")
                pushed = total(push.engine_port("decode-0"), "kv_hand_over_total", 'mode="push"')
                for i in range(a.rounds):
                    prompt = prompt_of(decode, tokens, f"r{i}n")
                    for s in took:
                        ms, waterfall = ttft_ms(s.port, prompt)
                        took[s].append(ms)
                    transfer.append(waterfall.get("transfer", float("nan")))
                pushed = total(push.engine_port("decode-0"), "kv_hand_over_total", 'mode="push"') - pushed
                mib = (total(decode, "vllm:nixl_bytes_transferred_sum") - before) / a.rounds / 2**20
                m = statistics.median
                over = lambda s: m([x - o for x, o in zip(took[s], took[one])])
                print(f"{tokens:>6} {transport:>5} {m(took[one]):>8.1f} ms {m(took[push]):>6.1f} ms {over(push):>7.1f} ms {m(took[pull]):>6.1f} ms {over(pull):>7.1f} ms "
                      f"{m(transfer):>6.2f} ms {mib:>6.1f} {mib * 2**20 / copy / 1e6:>10.2f} ms" + ("" if pushed == a.rounds else f"   only {pushed:.0f} were pushed"))


if __name__ == "__main__":
    main()
