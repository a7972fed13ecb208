#!/usr/bin/env python3
"""What the first request after a start waits for, beside later ones: TTFT through P/D of prompts that no cache has seen. Peers connect and test their
paths before the stack says it is ready, so the first should be like any other.
   bench/cold_start.py [--starts 7] [--after 60] [--tokens 128,512] [--transport shm,tcp]"""
import argparse, os, pathlib, statistics, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from handover import ROOT, harness, prompt_of, ttft_ms


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bin", default=str(ROOT / "build/release/bin"))
    p.add_argument("--model", default=str(ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    p.add_argument("--tokens", default="128,512")
    p.add_argument("--starts", type=int, default=7)
    p.add_argument("--after", type=int, default=60, help="requests after the first")
    p.add_argument("--transport", default="shm,tcp")
    a = p.parse_args()
    harness.BIN, harness.MODEL = os.path.realpath(a.bin), os.path.realpath(a.model)
    print(f"{a.starts} starts, {a.after} requests after the first of each; medians of TTFT")
    print(f"{'tokens':>6} {'path':>5} {'first':>10} {'second':>10} {'later':>10} {'first/later':>12}")
    for transport in a.transport.split(","):
        for tokens in map(int, a.tokens.split(",")):
            first, second, later = [], [], []
            for start in range(a.starts):
                with harness.Stack(1, 1, args=["--threads", "2", "--kv-transport", transport]) as s:
                    decode = s.engine_port("decode-0")
                    took = [ttft_ms(s.port, prompt_of(decode, tokens, f"s{start}r{i}n"))[0] for i in range(a.after + 1)]
                first.append(took[0])
                second.append(took[1])
                later.append(statistics.median(took[1:]))
            m = statistics.median
            print(f"{tokens:>6} {transport:>5} {m(first):>7.1f} ms {m(second):>7.1f} ms {m(later):>7.1f} ms {m(first) / m(later):>12.2f}")


if __name__ == "__main__":
    main()
