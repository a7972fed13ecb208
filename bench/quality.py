#!/usr/bin/env python3
"""Decision quality on real engines: prefix-aware against least-loaded against random picking, over a ladder of rates, interleaved on one set of
workers.   bench/quality.py [--prefill 2 --decode 2] [--rates 1,2,4] [--requests 60] [--rounds 3]
Every run has prompts of its own (a new salt), so no run finds another's cache. Prints medians over rounds: output tokens/s, TTFT, share of
prompt tokens found in an engine's prefix cache, picks of the busiest worker. The same question for 16 GPUs: baton sim."""
import argparse, json, os, pathlib, random, statistics, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/e2e"))
import harness
from harness import Stack, free_port, metrics, total, wait_for

SCORERS = {"prefix-aware": [("prefix-cache-scorer", 3), ("queue-scorer", 2), ("kv-cache-utilization-scorer", 2), ("active-request-scorer", 2)],
           "least-loaded": [("queue-scorer", 2), ("kv-cache-utilization-scorer", 2), ("active-request-scorer", 2)], "random": []}
WORDS = "river stone cloud window garden letter morning silver bridge paper music forest winter summer light shadow story answer question road".split()


def config(policy):
    picker = "random-picker" if policy == "random" else "max-score-picker"
    scorers = SCORERS[policy]
    def profile(role):
        refs = [{"pluginRef": f"{role}-filter"}, *[{"pluginRef": n, "weight": w} for n, w in scorers], {"pluginRef": picker}]
        return {"name": role, "plugins": refs}
    return {"apiVersion": "llm-d.ai/v1alpha1", "kind": "EndpointPickerConfig",
            "plugins": [{"type": t} for t in ["prefill-filter", "decode-filter", *[n for n, _ in scorers], picker, "always-disagg-pd-decider"]] +
                       [{"type": "disagg-profile-handler", "parameters": {"deciders": {"prefill": "always-disagg-pd-decider"}}}],
            "schedulingProfiles": [profile("prefill"), profile("decode")]}


def text(rng, words):
    return " ".join(rng.choice(WORDS) for _ in range(words))


def prompts(shape, n, salt, a):
    rng = random.Random(salt)
    prefixes = [text(rng, a.shared) for _ in range(a.groups)]
    if shape == "shared-prefix":
        return [f"{salt} {rng.choice(prefixes)} {text(rng, a.question)}" for _ in range(n)]
    if shape == "multi-turn":  # each prompt is a conversation so far; its earlier turns came some requests before
        history, out = [f"{salt} {text(rng, a.question)}" for _ in range(a.groups)], []
        for i in range(n):
            g = i % a.groups
            history[g] += " " + text(rng, a.question)
            out.append(history[g])
        return out
    return [f"{salt} {text(rng, a.shared + a.question)}" for _ in range(n)]


def cache(workers):
    hits = sum(total(p, "vllm:prefix_cache_hits_total") for p in workers)
    return hits, sum(total(p, "vllm:prefix_cache_queries_total") for p in workers)


def one_run(port, shape, rate, salt, workers, a, tmp):
    data, out = f"{tmp}/{salt}.jsonl", f"{tmp}/{salt}.json"
    with open(data, "w") as f:
        for prompt in prompts(shape, a.requests, salt, a):
            f.write(json.dumps({"prompt": prompt, "output_len": a.output}) + "\n")
    hits, queries = cache(workers)
    subprocess.run([f"{harness.BIN}/baton", "bench", "--port", str(port), "--dataset-name", "custom", "--dataset-path", data, "--num-prompts",
                    str(a.requests), "--request-rate", str(rate), "--ignore-eos", "--temperature", "0", "--save-result", "--result-filename", out,
                    "--disable-tqdm"], check=True, stdout=subprocess.DEVNULL)
    r = json.load(open(out))
    now_hits, now_queries = cache(workers)
    return {"tok/s": r["output_throughput"], "ttft": r["median_ttft_ms"], "p99": r["p99_ttft_ms"], "failed": r["failed"],
            "hit": (now_hits - hits) / max(1, now_queries - queries)}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bin", default=str(ROOT / "build/release/bin"))
    p.add_argument("--model", default=str(ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    p.add_argument("--prefill", type=int, default=2)
    p.add_argument("--decode", type=int, default=2)
    p.add_argument("--rates", default="1,2,4,6")
    p.add_argument("--shapes", default="shared-prefix,multi-turn,random")
    p.add_argument("--policies", default="prefix-aware,least-loaded,random")
    for name, value in (("requests", 60), ("rounds", 3), ("groups", 6), ("shared", 600), ("question", 60), ("output", 24)):
        p.add_argument(f"--{name}", type=int, default=value)
    a = p.parse_args()
    harness.BIN, harness.MODEL = os.path.realpath(a.bin), os.path.realpath(a.model)
    policies, routers = a.policies.split(","), {}
    with Stack(prefill=a.prefill, decode=a.decode) as s, tempfile.TemporaryDirectory() as tmp:
        try:
            for policy in policies:
                path = f"{tmp}/{policy}.yaml"
                json.dump(config(policy), open(path, "w"))  # JSON is YAML
                port = free_port()
                process = subprocess.Popen([f"{harness.BIN}/baton-router", "--http-port", str(port), "--host", "127.0.0.1", "--endpoints",
                                            f"{s.dir}/endpoints.json", "--config-file", path, "--log-level", "error"])
                routers[policy] = (port, process)
                wait_for(lambda: total(port, "baton_gateway_endpoint_up") == len(s.endpoints), 20, "the router")
            workers = [s.engine_port(n) for n in s.endpoints]
            print(f"{a.prefill} prefill + {a.decode} decode, {a.requests} requests a run, medians of {a.rounds} interleaved rounds")
            print(f"{'load':14} {'req/s':>6} {'policy':14} {'tok/s':>8} {'TTFT p50':>9} {'p99 ms':>8} {'hits':>7} {'failed':>7}")
            for shape in a.shapes.split(","):
                for rate in map(float, a.rates.split(",")):
                    rows = {policy: [] for policy in policies}
                    for i in range(a.rounds):
                        for policy in random.sample(policies, len(policies)):
                            rows[policy].append(one_run(routers[policy][0], shape, rate, f"{shape[0]}{rate:g}x{i}{policy}{time.time_ns() % 10**6}", workers, a, tmp))
                    for policy in policies:
                        m = {k: statistics.median(r[k] for r in rows[policy]) for k in rows[policy][0]}
                        print(f"{shape:14} {rate:6g} {policy:14} {m['tok/s']:8.1f} {m['ttft']:9.1f} {m['p99']:8.1f} {m['hit']:7.1%} {m['failed']:7.0f}", flush=True)
        finally:
            for _, process in routers.values():
                process.terminate()
                process.wait()


if __name__ == "__main__":
    main()
