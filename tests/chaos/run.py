#!/usr/bin/env python3
"""Chaos: a stack of 2 prefill and 2 decode workers answers greedy requests while one of faults.py strikes every so often.

tests/chaos/run.py --bin DIR --requests 10000 --fault-every 1s --seed N

Every request must end in the right text (from a run without faults) or in one clear error; afterwards no engine may hold a block or a
grant. The model must be a real one: what a random one says is not read back as the tokens it was, so no stream could go on elsewhere."""
import argparse, collections, concurrent.futures, http.client, json, os, random, re, sys, tempfile, threading, time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "e2e")]
import harness
from faults import FAULTS
from harness import Stack, total, wait_for
from kv_proxy import KvProxies

WORDS = "the ferry left island before dawn carrying letters oranges and one very patient dog while rain fell on quiet roofs".split()
PROMPTS = 40
HANG_S = 120


def prompts(rng):
    """(prompt, max_tokens): 20 to 1,400 bytes."""
    lengths = [rng.choice((20, 80, 200, 400, 800, 1400)) for _ in range(PROMPTS)]
    return [(" ".join(rng.choice(WORDS) for _ in range(n // 5))[:n], rng.choice((4, 12, 32))) for n in lengths]


class Outcome:
    def __init__(self, kind, detail="", text=None):
        self.kind, self.detail, self.text = kind, detail, text  # kind: text, error, broken


def read_stream(response):
    """One clean stream, or one error event and the end; anything else is broken."""
    text, errors, done = "", [], False
    for line in response:
        if not line.startswith(b"data: "):
            continue
        data = line[6:].strip()
        if data == b"[DONE]":
            done = True
            continue
        event = json.loads(data)
        if "error" in event:
            errors.append(event["error"])
        for choice in event.get("choices", []):
            text += choice["text"]
    if len(errors) > 1:
        return Outcome("broken", f"{len(errors)} errors in one stream")
    if errors:
        return Outcome("error", f"in the stream: {errors[0].get('code')}: {re.sub('[0-9]+', 'N', errors[0].get('message', ''))[:160]}")
    return Outcome("text", text=text) if done else Outcome("broken", f"the stream ended after {len(text)} characters without [DONE]")


def ask(port, prompt, max_tokens, stream):
    body = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True, "stream": stream}
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_S)
    try:
        c.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        r = c.getresponse()
        if r.status == 200 and stream:
            return read_stream(r)
        answer = json.loads(r.read())
        if r.status == 200:
            return Outcome("text", text=answer["choices"][0]["text"])
        error = answer.get("error", answer)  # the sidecar speaks as llm-d's does: the error is the whole body
        if not error["message"]:
            return Outcome("broken", f"{r.status} without a message")
        return Outcome("error", f"{r.status}: {re.sub('[0-9]+', 'N', error['message'])[:160]}")
    except Exception as e:  # whatever the client library could not read is no clear answer
        return Outcome("broken", f"{type(e).__name__}: {e}")
    finally:
        c.close()


class Chaos:
    def __init__(self, options):
        self.options, self.random = options, random.Random(options.seed)
        self.proxies = KvProxies(options.seed)
        self.timers, self.struck, self.lock = [], [], threading.Lock()
        self.over = threading.Event()
        self.outcomes, self.details, self.wrong, self.requests = collections.Counter(), collections.Counter(), [], []

    def bin_dir(self, where):
        os.symlink(os.path.join(HERE, "engine_wrapper.py"), f"{where}/baton-engine")
        for name in ("baton-sidecar", "baton-router"):
            os.symlink(f"{harness.BIN}/{name}", f"{where}/{name}")
        os.environ["BATON_CHAOS_ENGINE"] = f"{harness.BIN}/baton-engine"
        os.environ["BATON_CHAOS_CONTROL"] = str(self.proxies.control_port)
        return where

    def run(self):
        with tempfile.TemporaryDirectory(prefix="baton-chaos-") as tmp:
            args = ["--kv-transport", "tcp", "--bin-dir", self.bin_dir(tmp), "--log-level", self.options.log_level]
            # No prefix cache: every request hands over. A short lease: what leaks shows soon.
            engine_args = ["--no-enable-prefix-caching", "--kv-lease=3", "--num-gpu-blocks-override=1024"]
            with Stack(prefill=2, decode=2, args=args, engine_args=engine_args, model=self.options.model) as self.stack:
                self.drive()
        self.proxies.close()

    def drive(self):
        work = prompts(self.random)
        want = [ask(self.stack.port, p, n, False) for p, n in work]
        assert all(w.kind == "text" for w in want), [w.detail for w in want]
        assert len({w.text for w in want}) > PROMPTS * 3 // 4, "the texts must tell prompts apart"
        self.quiet_s = self.time_of_quiet_requests(work)
        striker = threading.Thread(target=self.strike)
        striker.start()
        began = time.monotonic()
        orders = [(i, self.random.randrange(PROMPTS), self.random.random() < 0.5) for i in range(self.options.requests)]
        with concurrent.futures.ThreadPoolExecutor(self.options.concurrency) as pool:
            list(pool.map(lambda o: self.one(o, work, want), orders))
        self.seconds = time.monotonic() - began
        self.over.set()
        striker.join()
        self.settle(work, want)

    def time_of_quiet_requests(self, work):
        spent = []
        for p, n in work:
            began = time.monotonic()
            ask(self.stack.port, p, n, False)
            spent.append(time.monotonic() - began)
        return sorted(spent)[len(spent) // 2]

    def one(self, order, work, want):
        _, k, stream = order
        began = time.monotonic()
        got = ask(self.stack.port, *work[k], stream)
        ended = time.monotonic()
        with self.lock:
            self.requests.append((began, ended, got.kind))
            if got.kind == "text" and got.text != want[k].text:
                got.kind = "wrong"
            if got.kind in ("wrong", "broken"):
                self.wrong.append((got.kind, k, stream, round(ended - began, 1), got.detail or f"{got.text!r} instead of {want[k].text!r}"))
            self.outcomes[got.kind] += 1
            if got.kind == "error":
                self.details[got.detail] += 1
        if got.kind == "error":
            self.over.wait(1)  # Retry-After

    def strike(self):
        names = [f[0] for f in FAULTS]
        while not self.over.wait(self.options.fault_every):
            name = self.random.choices(names, [f[1] for f in FAULTS])[0]
            at = time.monotonic()
            hit = dict((f[0], f[2]) for f in FAULTS)[name](self)
            if hit:
                self.struck.append((at, name, hit))

    def settle(self, work, want):
        """Everybody comes back, everything works, and nothing is left."""
        self.proxies.calm()
        for t in self.timers:
            t.join()
        engines = [n for n in self.stack.endpoints]
        for name in engines:
            self.stack.wait_ready(name, 90)
        began = time.monotonic()
        ports = [self.stack.engine_port(n) for n in engines]
        for port in ports:
            for metric in ("vllm:kv_cache_usage_perc", "kv_grants", "vllm:num_requests_running", "vllm:num_requests_waiting"):
                wait_for(lambda: total(port, metric) == 0, 90, f"{metric} of port {port} to be 0 again")
        self.rest_s = time.monotonic() - began
        for (p, n), w in zip(work, want):
            after = ask(self.stack.port, p, n, False)
            assert (after.kind, after.text) == ("text", w.text), f"after the faults: {after.kind} {after.detail}"

    def report(self):
        out = [f"{sum(self.outcomes.values())} requests in {self.seconds:.0f} s, {len(self.struck)} faults, seed {self.options.seed}: " +
               ", ".join(f"{n} {k}" for k, n in sorted(self.outcomes.items()))]
        out += [f"  error {k}: {n}" for k, n in self.details.most_common()]
        out.append(f"  a quiet request takes {self.quiet_s * 1000:.0f} ms (median); at rest {self.rest_s:.1f} s after everybody was back")
        out.append(f"  {'fault':28} {'times':>5}  requests under way when it struck: {'number':>6} {'errors':>6} {'median s':>9} {'longest s':>9}")
        for name, _, _ in FAULTS:
            times = [at for at, n, _ in self.struck if n == name]
            hit = [(e - at, kind) for at in times for b, e, kind in self.requests if b <= at < e]
            if times:
                left = sorted(s for s, _ in hit) or [0]
                out.append(f"  {name:28} {len(times):5}  {'':35} {len(hit):6} {sum(k != 'text' for _, k in hit):6} {left[len(left) // 2]:9.2f} {left[-1]:9.2f}")
        out.append(f"  KV wire faults that met bytes: {self.proxies.injected}")
        for w in self.wrong[:10]:
            out.append(f"  VIOLATION {w}")
        return "\n".join(out)


def seconds(text):
    return float(text.removesuffix("s"))


def options(argv=None):
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--bin", default=os.path.join(HERE, "../../build/release/bin"))
    p.add_argument("--requests", type=int, default=10000)
    p.add_argument("--fault-every", type=seconds, default=1.0, metavar="SECONDS")
    p.add_argument("--concurrency", type=int, default=8)
    p.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    p.add_argument("--model", default=harness.MODEL or os.path.join(HERE, "../../models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    p.add_argument("--log-level", default="info", choices=("debug", "info", "error"))
    return p.parse_args(argv)


def main():
    o = options()
    harness.BIN = os.path.realpath(o.bin)
    chaos = Chaos(o)
    chaos.run()
    print(chaos.report())
    sys.exit(1 if chaos.wrong else 0)


if __name__ == "__main__":
    main()
