#!/usr/bin/env python3
"""Long life of one engine: clients that ask, cancel, hang up and talk nonsense, in a KV pool that is too small for them all.

tests/soak/run.py --bin DIR --minutes 30 --seed N [--engine-arg=--flag]...

Requires that nobody waits for ever, that malformed requests get one clear error, that every answer is the one the same request gets alone
(each worker's every tenth answer is asked again at the end, without company), that no block or request is left when all are
served, and that memory is flat: after the first quarter of the time it grows by at most 3 percent and 8 MiB."""
import argparse, collections, concurrent.futures, http.client, json, os, random, socket, statistics, sys, threading, time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "e2e")]
import harness
from harness import Stack, get, total, wait_for

WORDS = "the ferry left island before dawn carrying letters oranges and one very patient dog while rain fell on quiet roofs".split()
HANG_S = 300
BLOCKS = 72  # of 16 tokens: one of the longer requests and a short one fill them
SPECULATION = json.dumps({"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 2, "prompt_lookup_max": 4})


def text(rng, most):
    """Some words; half of the time one part is said again, as in documents that are edited or quoted."""
    words = [rng.choice(WORDS) for _ in range(rng.randint(1, most))]
    return " ".join(words + (words[: len(words) // 2] if rng.random() < 0.5 else []))


def good_body(rng):
    body = {"prompt": text(rng, rng.choice((10, 60, 250, 400))), "max_tokens": rng.choice((1, 8, 40, 120)), "temperature": 0}
    if rng.random() < 0.4:
        body |= {"temperature": rng.choice((0.3, 1.0)), "seed": rng.randrange(1 << 31)}
        body |= rng.choice(({}, {"top_p": 0.9}, {"top_k": 40}, {"min_p": 0.1}, {"n": 2}))
    if rng.random() < 0.5:
        body["ignore_eos"] = True
    body |= rng.choice(({}, {}, {"logprobs": 2}, {"repetition_penalty": 1.2}, {"stop": [" the", "dog"]}, {"frequency_penalty": 0.4}, {"min_tokens": 1}))
    return body


MALFORMED = [
    b"", b"{", b"[]", b'"x"', b"null", b'{"prompt": "a", "max_tokens": -1}', b'{"prompt": "a", "max_tokens": "many"}', b'{"max_tokens": 3}',
    b'{"prompt": [1, 2, -5]}', b'{"prompt": [999999999]}', b'{"prompt": "a", "temperature": 1e400}', b'{"prompt": "a", "temperature": -3}',
    b'{"prompt": "a", "n": 0}', b'{"prompt": "a", "top_p": 7}', b'{"prompt": "a", "model": "nobody"}', b'{"prompt": "a", "stop": [[]]}',
    b'{"prompt": ' + b"[" * 500 + b"]" * 500 + b"}", b'{"prompt": "' + b"word " * 6000 + b'"}', b'{"prompt": "a", "logprobs": 100000}', b'{"prompt": "\xff\xfe"}',
]


def memory_mib(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError("no VmRSS")


class Client(threading.Thread):
    """One user: a request after the other until the time is over."""

    def __init__(self, soak, number):
        super().__init__(daemon=True)
        self.soak, self.rng = soak, random.Random(f"{soak.options.seed}/{number}")
        self.counts, self.kept, self.wrong, self.answers = collections.Counter(), [], [], 0

    def run(self):
        kinds = ((self.ask, 60), (self.cancel, 20), (self.nonsense, 12), (self.half_a_request, 4), (self.say_nothing, 4))
        while not self.soak.over.is_set():
            act = self.rng.choices([k for k, _ in kinds], [w for _, w in kinds])[0]
            try:
                act()
                self.counts[act.__name__] += 1
            except (OSError, ValueError, KeyError, http.client.HTTPException) as e:
                self.wrong.append(f"{act.__name__}: {type(e).__name__}: {e}")
                return

    def ask(self):
        body = good_body(self.rng)
        got = self.soak.answer(body)
        self.answers += 1
        if self.answers % 10 == 1:
            self.kept.append((body, got))

    def cancel(self):
        body = good_body(self.rng) | {"stream": True, "max_tokens": 400, "ignore_eos": True}
        with socket.create_connection(("127.0.0.1", self.soak.port), timeout=HANG_S) as c:
            data = json.dumps(body).encode()
            c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
            got = b""
            for _ in range(self.rng.randint(0, 4)):
                part = c.recv(4096)
                if not part:
                    raise ValueError(f"the stream ended before its time, after {got[-300:]!r}")
                got += part
                if b"[DONE]" in got:  # a stop string was written before we left
                    break

    def nonsense(self):
        data = self.rng.choice(MALFORMED)
        path = self.rng.choice(("/v1/completions", "/v1/completions", "/v1/chat/completions", "/tokenize"))
        status, _, answer = harness.request(self.soak.port, "POST", path, data, timeout=HANG_S)
        if not 400 <= status < 500 and not (path == "/tokenize" and status == 200):
            raise ValueError(f"{status} for {path} {data[:60]!r}")
        if status != 200 and not (json.loads(answer).get("error") or {}).get("message"):
            raise ValueError(f"no message with {status} for {path} {data[:60]!r}")

    def half_a_request(self):
        with socket.create_connection(("127.0.0.1", self.soak.port), timeout=HANG_S) as c:
            c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"prompt\": ")

    def say_nothing(self):
        with socket.create_connection(("127.0.0.1", self.soak.port), timeout=HANG_S) as c:
            c.sendall(self.rng.choice((b"", b"\r\n\r\n", b"GET /health HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00")))


class Soak:
    def __init__(self, options):
        self.options, self.over, self.memory, self.problems = options, threading.Event(), [], []
        self.compared = 0

    def answer(self, body):
        status, _, data = harness.request(self.port, "POST", "/v1/completions", body, timeout=HANG_S)
        if status != 200:
            raise ValueError(f"{status}: {data[:300]!r}")
        return [(c["text"], c["finish_reason"], (c.get("logprobs") or {}).get("tokens")) for c in json.loads(data)["choices"]]

    def run(self):
        args = [f"--num-gpu-blocks-override={BLOCKS}", "--max-num-seqs=16", "--max-num-batched-tokens=512", f"--speculative-config={SPECULATION}",
                *self.options.engine_arg]
        with Stack(0, 1, engine_args=args, model=self.options.model) as stack:
            self.port, self.pid = stack.engine_port("engine-0"), stack.children()["engine-0"][0]
            self.drive()
            self.settle()
            if stack.children()["engine-0"][0] != self.pid:
                self.problems.append("the engine was started again")
        return self

    def crowd(self):
        """Eight answers that all fit in at first and cannot all go on: the youngest have to give their blocks back."""
        bodies = [{"prompt": f"{i} " + text(random.Random(i), 20), "max_tokens": 180, "temperature": 0, "ignore_eos": True} for i in range(8)]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            return list(zip(bodies, pool.map(self.answer, bodies)))

    def drive(self):
        self.crowded = self.crowd()
        self.clients = [Client(self, i) for i in range(self.options.clients)]
        for c in self.clients:
            c.start()
        began, end = time.monotonic(), time.monotonic() + self.options.minutes * 60
        while time.monotonic() < end and any(c.is_alive() for c in self.clients):
            self.over.wait(min(1.0, self.options.minutes))
            self.memory.append((time.monotonic() - began, memory_mib(self.pid)))
            if get(self.port, "/health")[0] != 200:
                self.problems.append(f"/health failed after {time.monotonic() - began:.0f} s")
        self.over.set()
        for c in self.clients:
            c.join(HANG_S)
            if c.is_alive():
                self.problems.append("a client waits for ever")
        self.problems += [w for c in self.clients for w in c.wrong]

    def settle(self):
        for metric in ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"):
            wait_for(lambda: total(self.port, metric) == 0, 60, f"{metric} to be 0")
        self.preemptions = total(self.port, "vllm:num_preemptions_total")
        self.accepted = total(self.port, "vllm:spec_decode_num_accepted_tokens_total")
        self.aborted = total(self.port, "vllm:request_success_total", 'finished_reason="abort"')
        for body, got in (self.crowded[-2:] + [k for c in self.clients for k in c.kept])[: self.options.compare]:
            alone = self.answer(body)
            self.compared += 1
            if alone != got:
                self.problems.append(f"in company {got} but alone {alone}: {json.dumps(body)[:400]}")
        self.check_memory()

    def check_memory(self):
        first, last = self.options.minutes * 60 / 4, self.options.minutes * 60 * 3 / 4
        early = [m for t, m in self.memory if first <= t < 2 * first]
        late = [m for t, m in self.memory if t >= last]
        if self.options.minutes >= 2 and early and late:
            grown, allowed = statistics.median(late) - statistics.median(early), 8 + 0.03 * statistics.median(early)
            if grown > allowed:
                self.problems.append(f"memory grew by {grown:.1f} MiB, {allowed:.1f} were allowed")

    def report(self):
        counts = sum((c.counts for c in self.clients), collections.Counter())
        out = [f"{self.options.minutes:g} minutes, seed {self.options.seed}: " + ", ".join(f"{n} {k}" for k, n in sorted(counts.items())),
               f"  {self.compared} answers were the same alone; {self.preemptions:.0f} preemptions, {self.aborted:.0f} aborted, {self.accepted:.0f} draft tokens accepted",
               f"  memory {self.memory[0][1]:.0f} MiB at first, {self.memory[-1][1]:.0f} at last"]
        return "\n".join(out + [f"  PROBLEM {p}" for p in self.problems[:20]])


def options(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bin", default=os.path.join(HERE, "../../build/release/bin"))
    p.add_argument("--model", default=harness.MODEL or os.path.join(HERE, "../../models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    p.add_argument("--minutes", type=float, default=30)
    p.add_argument("--clients", type=int, default=10)
    p.add_argument("--compare", type=int, default=200, help="answers to ask for again, at most")
    p.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    p.add_argument("--engine-arg", action="append", default=[], help="a further flag of the engine")
    return p.parse_args(argv)


if __name__ == "__main__":
    o = options()
    harness.BIN = os.path.realpath(o.bin)
    soak = Soak(o).run()
    print(soak.report())
    sys.exit(1 if soak.problems else 0)
