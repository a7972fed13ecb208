"""The programs as a person meets them: help, errors that say what to do, detached stacks, the benchmark's JSON."""
import json, os, subprocess, tempfile, unittest

import harness
from harness import Stack


def run(*args, **kw):
    r = subprocess.run([f"{harness.BIN}/{args[0]}", *args[1:]], capture_output=True, text=True, timeout=120, **kw)
    return r.returncode, r.stdout, r.stderr


class Cli(unittest.TestCase):
    def test_help_and_version(self):
        for program in (["baton"], ["baton", "up"], ["baton", "chat"], ["baton", "bench"], ["baton", "pull"], ["baton", "deploy", "ratio"], ["baton-engine"], ["baton-sidecar"], ["baton-router"]):
            code, out, err = run(*program, "--help")
            self.assertEqual((code, err), (0, ""), program)
            self.assertLessEqual(max(map(len, out.splitlines())), 130, program)
        self.assertEqual(run("baton", "--version")[0], 0)
        self.assertEqual(run("baton", "dance")[0], 2)

    def test_wrong_values_are_errors_unknown_vllm_flags_are_warnings(self):
        code, _, err = run("baton-engine", "serve", "x.gguf", "--port", "banana", "--max-num-seqs", "-3")
        self.assertEqual(code, 2)
        self.assertIn("--port", err)
        self.assertIn("--max-num-seqs", err)
        code, _, err = run("baton-engine", "serve", "/no/such.gguf", "--of-a-later-vllm", "16")
        self.assertEqual(code, 1)
        self.assertIn("--of-a-later-vllm", err)
        self.assertIn("/no/such.gguf", err)

    def test_broken_models_are_refused_with_a_reason(self):
        whole = open(harness.MODEL, "rb").read(1 << 20)
        for name, data in (("truncated.gguf", whole), ("empty.gguf", b""), ("text.gguf", b"hello world " * 100), ("lying.gguf", whole[:8] + b"\xff" * 16 + whole[24:])):
            with tempfile.TemporaryDirectory() as d:
                path = os.path.join(d, name)
                open(path, "wb").write(data)
                code, _, err = run("baton-engine", "serve", path, "--port", "0")
                self.assertEqual(code, 1, (name, err))
                self.assertIn(name, err)

    def test_a_stack_that_cannot_start_says_why(self):
        with tempfile.TemporaryDirectory() as d:
            open(f"{d}/m.gguf", "w").write("not a model")
            code, out, err = run("baton", "up", "--model", f"{d}/m.gguf", "--port", "0", "--state-dir", d)
            self.assertEqual(code, 1)
            self.assertIn("cannot start", err)
            self.assertIn("m.gguf", err)

    def test_detached_stack_and_benchmark(self):
        with tempfile.TemporaryDirectory() as d:
            env = {**os.environ, "BATON_STATE_DIR": d}
            code, out, err = run("baton", "up", "--model", harness.MODEL, "--port", "0", "--detach", env=env)
            self.assertEqual(code, 0, out + err)
            url = out.split("stack ready: ")[1].split()[0]
            port = url.rsplit(":", 1)[1]
            try:
                result = f"{d}/result.json"
                code, out, err = run("baton", "bench", "--base-url", url, "--num-prompts", "6", "--max-concurrency", "3", "--random-input-len", "32",
                                     "--random-output-len", "8", "--ignore-eos", "--save-result", "--result-filename", result)
                self.assertEqual(code, 0, out + err)
                j = json.load(open(result))
                self.assertEqual((j["completed"], j["total_input_tokens"], j["total_output_tokens"]), (6, 6 * 32, 6 * 8))
                for key in ("duration", "request_throughput", "output_throughput", "mean_ttft_ms", "p99_ttft_ms", "median_tpot_ms", "mean_itl_ms"):
                    self.assertGreater(j[key], 0, key)
                code, out, _ = run("baton", "chat", "--url", url, "--once", "Say hello.", "--max-tokens", "8")
                self.assertEqual(code, 0)
                self.assertIn("read by", out)
            finally:
                code, out, err = run("baton", "down", "--port", port, env=env)
            self.assertEqual(code, 0, out + err)
            self.assertNotEqual(run("baton", "down", "--port", port, env=env)[0], 0)
