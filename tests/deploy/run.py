#!/usr/bin/env python3
"""Tests of charts and guides: run.py [--bin DIR] [--write] [test names]. Python and tools come from build/deploy-peers (tools/deploy-peers)."""
import argparse, os, sys, time, unittest

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, HERE)
p = argparse.ArgumentParser()
p.add_argument("--bin", help="folder of our programs: then every argument that a chart passes is tried on them")
p.add_argument("--write", action="store_true", help="record the goldens anew")
p.add_argument("tests", nargs="*")
a = p.parse_args()
if a.write:
    os.environ["BATON_WRITE_GOLDENS"] = "1"

import stack

stack.BIN = os.path.realpath(a.bin) if a.bin else None
began, loader = time.monotonic(), unittest.defaultTestLoader
suite = loader.loadTestsFromNames(a.tests) if a.tests else loader.discover(HERE, "test_*.py")
result = unittest.TextTestRunner(verbosity=2 if sys.stdout.isatty() or a.tests else 1).run(suite)
bad = len(result.failures) + len(result.errors)
print(f"deploy: {result.testsRun} tests, {bad} failed, {len(result.skipped)} skipped, {time.monotonic() - began:.0f} s")
sys.exit(bad != 0)
