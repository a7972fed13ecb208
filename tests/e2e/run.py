#!/usr/bin/env python3
"""Runs the end-to-end tests of the real processes: tests/e2e/run.py --bin DIR --model FILE [test names]"""
import argparse, os, sys, time, unittest

sys.path.insert(0, __file__.rsplit("/", 1)[0])
import harness


def cpu():
    """Of this process and of those that ended: what a test costs, however busy the machine is."""
    return sum(os.times()[:4])


class Result(unittest.TextTestResult):
    def startTest(self, test):
        super().startTest(test)
        self.began, self.cpu = time.monotonic(), cpu()
        self.stream.write(f"    {test.id()} ... ")
        self.stream.flush()

    def addSuccess(self, test):
        unittest.TestResult.addSuccess(self, test)
        self.stream.writeln(f"ok ({time.monotonic() - self.began:.1f} s, {cpu() - self.cpu:.1f} s of CPU)")

    def getDescription(self, test):
        return ""


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--bin", required=True)
    p.add_argument("--model", required=True)
    p.add_argument("tests", nargs="*")
    a = p.parse_args()
    harness.BIN, harness.MODEL = os.path.realpath(a.bin), os.path.realpath(a.model)
    loader = unittest.defaultTestLoader
    suite = loader.loadTestsFromNames(a.tests) if a.tests else loader.discover(os.path.dirname(os.path.realpath(__file__)), "test_*.py")
    result = unittest.TextTestRunner(verbosity=0, resultclass=Result).run(suite)
    print(f"e2e: {result.testsRun - len(result.failures) - len(result.errors)} passed, {len(result.failures) + len(result.errors)} failed")
    sys.exit(not result.wasSuccessful())
