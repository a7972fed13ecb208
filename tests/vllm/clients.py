#!/usr/bin/env python3
"""The programs with which vLLM's users measure it, unchanged, against baton-engine: tests/vllm/clients.py --bin DIR --model GGUF

`vllm bench serve` over completions, chat and responses: every request succeeds, and what it prints of tokens is what our counters say. lm_eval
(lm-evaluation-harness) by its local-completions backend, tokenizer over HTTP: a multiple choice, a text's perplexity and answers of our own, so that nothing is
fetched; its log-likelihoods are those of transformers in float32 on the same weights, and to the digit those of our own prompt_logprobs."""
import argparse, glob, json, os, re, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [HERE, f"{HERE}/../e2e"]
import environment
from environment import HOME, free_port, say
from harness import get, post, total, wait_for

NAME, PROMPTS = "smollm2", 24


class Engine:
    """with Engine(bin folder, model, folder for its log) as e: e.port"""

    def __init__(self, bin_dir, model, folder):
        self.port, self.log = free_port(), open(f"{folder}/engine.log", "w")
        self.process = subprocess.Popen([f"{bin_dir}/baton-engine", "serve", model, "--host", "127.0.0.1", "--port", str(self.port), "--served-model-name", NAME, "--max-model-len",
                                         "2048", "--kv-cache-memory-bytes", str(512 << 20), "--enable-tokenizer-info-endpoint"], stdout=self.log, stderr=self.log)

    def __enter__(self):
        wait_for(lambda: self.process.poll() is not None or get(self.port, "/health")[0] == 200, 300, "baton-engine")
        if self.process.poll() is not None:
            sys.exit("error: baton-engine ended:\n" + open(self.log.name).read()[-2000:])
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)

    def counted(self):
        names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:request_success_total")
        return [int(total(self.port, n)) for n in names]


def bench(engine, model, folder, backend, endpoint, *more):
    """One run of `vllm bench serve`; its printed counts against ours."""
    before = engine.counted()
    argv = [f"{HOME}/venv/bin/vllm", "bench", "serve", "--backend", backend, "--base-url", f"http://127.0.0.1:{engine.port}", "--endpoint", endpoint, "--tokenizer", model, "--dataset-name", "random",
            "--random-input-len", "48", "--random-output-len", "12", "--num-prompts", str(PROMPTS), "--max-concurrency", "6", "--seed", "7", "--temperature", "0", "--ready-check-timeout-sec", "60",
            "--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,90,99", "--goodput", "ttft:600000", "tpot:600000", "--save-result", "--save-detailed",
            "--result-dir", folder, "--result-filename", f"{backend}.json", *more]
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1", "PATH": f"{HOME}/venv/bin:{os.environ['PATH']}"})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    printed = {name: value for name, value in re.findall(r"(?m)^(\S[^:\n]*):\s+([\d.]+)\s*$", done.stdout)}
    result = json.load(open(f"{folder}/{backend}.json"))
    assert (printed["Successful requests"], printed["Failed requests"]) == (str(PROMPTS), "0"), done.stdout
    read, written, requests = (now - then for now, then in zip(engine.counted(), before))
    # One request more than it prints: the ready check, which is the first prompt.
    assert requests == PROMPTS + 1, (requests, done.stdout)
    assert read == int(printed["Total input tokens"]) + result["input_lens"][0], (read, done.stdout)
    assert written == int(printed["Total generated tokens"]) + result["output_lens"][0], (written, done.stdout)
    for metric in ("TTFT", "TPOT", "ITL", "E2EL"):
        for what in ("Mean", "Median", "P50", "P90", "P99"):
            assert float(printed[f"{what} {metric} (ms)"]) > 0, (what, metric, done.stdout)
    assert printed["Request goodput (req/s)"] == printed["Request throughput (req/s)"], done.stdout
    assert not any(result["errors"]), result["errors"]
    say(f"vllm bench serve --backend {backend}: {PROMPTS} requests, {printed['Total input tokens']} tokens in and {printed['Total generated tokens']} out, as we counted")


def samples(folder, task):
    """What --log_samples wrote: [(arguments, [answer a request])...]"""
    path, = glob.glob(f"{folder}/**/samples_{task}_*.jsonl", recursive=True)
    for line in open(path):
        row = json.loads(line)
        arguments = [list(row["arguments"][k].values()) for k in sorted(row["arguments"], key=lambda k: int(k.rsplit("_", 1)[1]))]
        yield arguments, [r[0] if isinstance(r, list) else r for r in row["resps"]]


def lm_eval(engine, folder, name, *args):
    """Runs our three tasks; {task: samples}, {task: metrics}."""
    out = f"{folder}/{name}"
    model_args = ",".join([f"model={NAME}", f"base_url=http://127.0.0.1:{engine.port}/v1/completions", "tokenizer_backend=remote", "max_retries=1", *args])
    tasks = ("baton_choice", "baton_text", "baton_write")
    done = subprocess.run([environment.lm_eval(), "--model", "local-completions", "--model_args", model_args, "--tasks", ",".join(tasks), "--include_path", f"{HERE}/tasks",
                           "--output_path", out, "--log_samples", "--batch_size", "4"], capture_output=True, text=True, cwd=f"{HERE}/tasks",
                          env={**os.environ, "HF_HOME": f"{folder}/cache", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TQDM_DISABLE": "1"})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    path, = glob.glob(f"{out}/**/results_*.json", recursive=True)
    return {t: list(samples(out, t)) for t in tasks}, json.load(open(path))["results"]


def pairs_of(got):
    """Every (context, continuation), what lm_eval found, and whether it found it the likeliest (None: it does not ask)."""
    for arguments, answers in got["baton_choice"]:
        for (context, continuation), (likelihood, greedy) in zip(arguments, answers):
            yield context, continuation, float(likelihood), str(greedy) == "True"
    for ((text,),), (likelihood,) in got["baton_text"]:
        yield "", text, float(likelihood[0] if isinstance(likelihood, list) else likelihood), None


def ours(engine, context, continuation):
    """The same by prompt_logprobs of one request alone."""
    ids = lambda text: post(engine.port, "/tokenize", {"prompt": text, "add_special_tokens": False})[2]["tokens"]
    info = json.loads(get(engine.port, "/tokenizer_info")[1])
    if context:
        spaces = len(context) - len(context.rstrip())
        begin = len(ids(context[: len(context) - spaces]))
        whole = ids(context + continuation)
    else:
        begin, whole = 1, ids(info.get("bos_token") or info["eos_token"]) + ids(continuation)
    status, _, answer = post(engine.port, "/v1/completions", {"model": NAME, "prompt": whole, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 1})
    assert status == 200, answer
    rows = answer["choices"][0]["prompt_logprobs"]
    mine = [rows[i][str(whole[i])] for i in range(begin, len(whole))]
    return sum(m["logprob"] for m in mine), all(m["rank"] == 1 for m in mine)


def check_likelihoods(engine, model, got):
    pairs = list(pairs_of(got))
    done = subprocess.run([f"{HOME}/venv/bin/python", f"{HERE}/loglikelihoods.py", model], input=json.dumps([p[:2] for p in pairs]), capture_output=True, text=True,
                          env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    worst = 0
    for (context, continuation, likelihood, greedy), exact in zip(pairs, json.loads(done.stdout)):
        what = (context, continuation, likelihood, greedy, exact)
        mine, likeliest = ours(engine, context, continuation)
        assert abs(likelihood - mine) < 1e-4, (what, mine)
        # BF16 activations beside float32: some hundredths a token.
        worst = max(worst, abs(likelihood - exact["sum"]) / exact["tokens"])
        assert abs(likelihood - exact["sum"]) < 0.05 * (1 + exact["tokens"]), what
        if greedy is not None:
            assert greedy == likeliest, what
            assert greedy == exact["greedy"] or exact["margin"] < 0.1, what
    return len(pairs), worst


def check_answers(engine, got):
    """generate_until is a completion that stops where it was told to."""
    for ((prompt, how),), (answer,) in got["baton_write"]:
        body = {"model": NAME, "prompt": prompt, "max_tokens": how["max_gen_toks"], "temperature": 0, "stop": how["until"], "add_special_tokens": False}
        alone = post(engine.port, "/v1/completions", body)[2]["choices"][0]["text"]
        assert answer == alone, (prompt, answer, alone)


def evaluate(engine, model, folder):
    got, results = lm_eval(engine, folder, "ids", "num_concurrent=1")
    n, worst = check_likelihoods(engine, model, got)
    check_answers(engine, got)
    text, again = lm_eval(engine, folder, "text", "num_concurrent=4", "tokenized_requests=False")
    assert text == got, "prompts as text and several at a time change the samples"
    acc = results["baton_choice"]["acc,none"]
    assert again["baton_choice"]["acc,none"] == acc >= 0.5, (results, again)
    say(f"lm_eval {environment.LM_EVAL}: {n} log-likelihoods as our own prompt_logprobs, within {worst:.3f} a token of transformers in float32; accuracy {acc:.2f}; the same as text")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bin", required=True)
    p.add_argument("--model", required=True)
    a = p.parse_args()
    environment.vllm()
    model = environment.model(os.path.realpath(a.model))
    with tempfile.TemporaryDirectory(prefix="baton-clients-") as folder, Engine(os.path.realpath(a.bin), model, folder) as engine:
        bench(engine, model, folder, "vllm", "/v1/completions", "--model", NAME, "--ignore-eos")
        bench(engine, model, folder, "openai-chat", "/v1/chat/completions", "--ignore-eos")  # the model's name is asked for
        bench(engine, model, folder, "openai-responses", "/v1/responses", "--model", NAME)
        evaluate(engine, model, folder)
    say("all of it passed")


if __name__ == "__main__":
    main()
