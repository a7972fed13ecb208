#!/usr/bin/env python3
"""The stored inputs of the fuzzers: what was found worth keeping, so that a short run begins where a long one ended.

    fuzz_inputs.py run FUZZER [-OPTION...]          with its inputs and the stored number of runs; with -max_total_time instead of that
    fuzz_inputs.py grow BIN [--seconds N] [NAME...]  looks for more for so long each, keeps the few that reach most, and writes the files

tests/cases/fuzz/NAME.txt has an input a line, bytes that are no printable ASCII as \\xNN. The line "# runs N" is how often ctest calls the fuzzer: about
two seconds under ASan. All begin with the same seed, so the same inputs are tried in every run, and a change is what fails one."""
import argparse, concurrent.futures, glob, os, pathlib, re, subprocess, sys, tempfile

STORED = pathlib.Path(__file__).resolve().parent.parent / "cases/fuzz"
RUNS = 5000                       # of a fuzzer without a file
INPUT_MAX, FILE_MAX = 512, 16384  # bytes: longer inputs, and what does not fit, are not kept; the short ones go first
SECONDS = 2                       # that a run should take
QUIET = ["-print_final_stats=0", "-verbosity=0", "-print_pcs=0"]


def escape(data):
    text = "".join(chr(b) if 32 <= b < 127 and b != 92 else f"\\x{b:02x}" for b in data)
    if text[:1] in ("#", ""):
        text = "\\x23" + text[1:] if text else ""
    return text[:-1] + "\\x20" if text.endswith(" ") else text


def unescape(line):
    return re.sub(rb"\\x([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), line.encode("ascii"))


def stored(name):
    """(runs, inputs)"""
    file = STORED / f"{name}.txt"
    if not file.exists():
        return RUNS, []
    lines = file.read_text().split("\n")
    runs = next((int(line.split()[2]) for line in lines if line.startswith("# runs ")), RUNS)
    return runs, [unescape(line) for line in lines if line and not line.startswith("#")]


def lay_out(inputs, at):
    """Every input a file; returns them as libFuzzer's -seed_inputs wants them."""
    for i, data in enumerate(inputs):
        pathlib.Path(at, f"{i:04}").write_bytes(data)
    listed = pathlib.Path(at, "list")
    listed.write_text(",".join(f"{at}/{i:04}" for i in range(len(inputs))))
    return [f"-seed_inputs=@{listed}"] if inputs else []


def run(fuzzer, options):
    runs, inputs = stored(os.path.basename(fuzzer))
    with tempfile.TemporaryDirectory(prefix="baton-fuzz-") as at:
        timed = any(o.startswith("-max_total_time") for o in options)
        return subprocess.run([fuzzer, *([] if timed else ["-seed=1", f"-runs={runs}"]), *lay_out(inputs, at), *options]).returncode


def round_down(n):
    digits = max(len(str(n)) - 2, 0)
    return max(n // 10**digits * 10**digits, 100)


def measured(fuzzer, *options):
    """(seconds of CPU, runs, coverage)"""
    process = subprocess.Popen([fuzzer, "-seed=1", "-print_pcs=0", *options], stderr=subprocess.PIPE, text=True, errors="replace")
    said = process.stderr.read()
    used = os.wait4(process.pid, 0)[2]
    process.returncode = 0
    return used.ru_utime + used.ru_stime, int(re.search(r"Done (\d+) runs in", said)[1]), (re.findall(r"cov: (\d+)", said) or ["?"])[-1]


def grow(fuzzer, seconds):
    name = os.path.basename(fuzzer)
    with tempfile.TemporaryDirectory(prefix="baton-fuzz-") as at:
        old, found, kept, bad = (pathlib.Path(at, d) for d in ("old", "found", "kept", "bad"))
        for d in (old, found, kept, bad):
            d.mkdir()
        begin = lay_out(stored(name)[1], old)
        call = lambda *a: subprocess.run([fuzzer, *QUIET, f"-artifact_prefix={bad}/", *map(str, a)], capture_output=True, text=True, errors="replace")
        done = call(f"-max_total_time={seconds}", f"-max_len={INPUT_MAX}", *begin, found)
        if done.returncode or any(bad.iterdir()):
            return f"{name}: it found something:\n{done.stderr[-3000:]}"
        call("-set_cover_merge=1", kept, found, old)
        inputs, size = [], 0
        for data in sorted((f.read_bytes() for f in kept.iterdir() if f.name != "list"), key=lambda d: (len(d), d)):
            if data and len(data) <= INPUT_MAX and size + len(escape(data)) < FILE_MAX:
                inputs.append(data)
                size += len(escape(data)) + 1
        begin = lay_out(inputs, old)
        start, _, _ = measured(fuzzer, "-runs=1")
        spent, tried, covered = measured(fuzzer, "-max_total_time=6", *begin)
        runs = max(round_down(int(tried * SECONDS / max(spent - start, 0.1))), 2 * len(inputs))
        STORED.mkdir(exist_ok=True)
        (STORED / f"{name}.txt").write_text(f"# runs {runs}\n" + "".join(escape(d) + "\n" for d in inputs))
        return f"{name}: {len(inputs)} inputs, {size} bytes, {runs} runs, cov {covered}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        sys.exit(run(sys.argv[2], sys.argv[3:]))
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("command", choices=["grow"])
    p.add_argument("bin", help="folder of the fuzzers, build/asan/bin")
    p.add_argument("names", nargs="*")
    p.add_argument("--seconds", type=int, default=60)
    p.add_argument("--jobs", type=int, default=os.cpu_count())
    a = p.parse_args()
    fuzzers = [f for f in sorted(glob.glob(f"{a.bin}/*_fuzz")) if not a.names or os.path.basename(f) in a.names]
    with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
        for said in pool.map(lambda f: grow(os.path.realpath(f), a.seconds), fuzzers):
            print(said, flush=True)
