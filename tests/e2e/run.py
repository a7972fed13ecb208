#!/usr/bin/env python3
"""Runs the end-to-end tests of the real processes: tests/e2e/run.py --bin DIR --model FILE [--then COMMAND] [test names]

All of them run in two lanes side by side, each file a process: what computes on every core in one; in the other what mostly waits, then COMMAND, and at
its end two that compute and that no neighbour disturbs, so that both lanes take equally long."""
import argparse, concurrent.futures, glob, os, re, shlex, subprocess, sys, time, unittest

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, HERE)
import harness

# A file that is not named here is taken for one that computes.
WAITING = ["test_kubernetes", "test_ratio", "test_envoy", "test_apis", "test_precise_prefix", "test_cli", "test_deploy_verify", "test_structured", "test_tools",
           "test_openai_client", "test_tracing", "test_gateway_edge", "test_deploy_plan", "test_vllm_clients"]
AT_THE_END = ["test_soak", "test_verify"]  # of the lane that waits
SLOWEST = 12  # so many are named at the end


def cpu():
    """Of this process and of those that ended: what a test costs, however busy the machine is."""
    return sum(os.times()[:4])


class Result(unittest.TextTestResult):
    def startTest(self, test):
        super().startTest(test)
        self.began, self.cpu = time.monotonic(), cpu()
        self.stream.write(f"    {test.id()} ... ")
        self.stream.flush()

    def took(self):
        return f"({time.monotonic() - self.began:.1f} s, {cpu() - self.cpu:.1f} s of CPU)"

    def addSuccess(self, test):
        unittest.TestResult.addSuccess(self, test)
        self.stream.writeln(f"ok {self.took()}")

    def addFailure(self, test, err):
        unittest.TestResult.addFailure(self, test, err)
        self.stream.writeln(f"FAILED {self.took()}")

    def addError(self, test, err):
        unittest.TestResult.addError(self, test, err)
        self.stream.writeln(f"ERROR {self.took()}" if isinstance(test, unittest.TestCase) else f"ERROR in {test}")

    def getDescription(self, test):
        return str(test)


def here(names):
    """In this process: (run, failed)."""
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=0, resultclass=Result).run(unittest.defaultTestLoader.loadTestsFromNames(names))
    return result.testsRun, len(result.failures) + len(result.errors)


def lane(commands):
    said = []
    for command in commands:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        print(done.stdout, end="", flush=True)
        said.append(done)
    return said


def all_files(then):
    """Every file: (run, failed)."""
    of = lambda name: [sys.executable, __file__, "--bin", harness.BIN, "--model", harness.MODEL, name]
    names = sorted(os.path.basename(f).removesuffix(".py") for f in glob.glob(f"{HERE}/test_*.py"))
    listed = lambda which: [of(n) for n in which if n in names]
    lanes = [of(n) for n in names if n not in WAITING + AT_THE_END], listed(WAITING) + ([shlex.split(then)] if then else []) + listed(AT_THE_END)
    with concurrent.futures.ThreadPoolExecutor(len(lanes)) as pool:
        said = [x for one in pool.map(lane, lanes) for x in one]
    run = failed = 0
    slow = []
    for done in said:
        ended = re.search(r"^e2e: (\d+) passed, (\d+) failed$", done.stdout, re.M)
        passed, bad = map(int, ended.groups()) if ended else (0, int(done.returncode != 0))
        run, failed = run + passed + bad, failed + bad
        if bad or done.returncode:
            print(f"    failed with {done.returncode}: {shlex.join(done.args)}")
            failed = max(failed, 1)
        slow += re.findall(r"^    (test_\S+) \.\.\. (?:.*\n)*?.*\((\d+\.\d) s, (\d+\.\d) s of CPU\)$", done.stdout, re.M)
    print("the slowest:")
    for name, seconds, of_cpu in sorted(slow, key=lambda t: -float(t[1]))[:SLOWEST]:
        print(f"    {seconds:>6} s {of_cpu:>6} s of CPU  {name}")
    return run, failed


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--bin", required=True)
    p.add_argument("--model", required=True)
    p.add_argument("--then", help="a command that mostly waits, run beside the tests that compute")
    p.add_argument("tests", nargs="*")
    a = p.parse_args()
    harness.BIN, harness.MODEL = os.path.realpath(a.bin), os.path.realpath(a.model)
    run, failed = here(a.tests) if a.tests else all_files(a.then)
    print(f"e2e: {run - failed} passed, {failed} failed")
    sys.exit(failed != 0)
