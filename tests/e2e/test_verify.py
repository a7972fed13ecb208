"""`baton verify` finds a right stack right, and says what is wrong where nobody listens."""
import subprocess, unittest

import harness
from harness import Stack


class Verify(unittest.TestCase):
    def run_it(self, url, *more):
        return subprocess.run([f"{harness.BIN}/baton", "verify", url, "--prompt-words=60", *more], capture_output=True, text=True)

    def test_a_right_stack(self):
        with Stack(prefill=1, decode=1) as s:
            done = self.run_it(s.url)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertIn("verdict: right", done.stdout)
            self.assertIn("ok    KV was handed over", done.stdout)

    def test_faults(self):
        with Stack(prefill=1, decode=2, engine_args=["--kv-lease=3"]) as s:  # what a killed worker held ends with its lease
            done = self.run_it(s.url, "--faults=8", "--state-dir", s.state)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            for row in ("survives faults", "everybody comes back", "nothing is left behind"):
                self.assertRegex(done.stdout, f"ok    {row}")
            self.assertNotIn("; 0 faults", done.stdout)

    def test_faults_need_a_stack_of_this_machine(self):
        with Stack(prefill=0, decode=1) as s:
            done = self.run_it(s.url, "--faults=1", "--state-dir", "/nonexistent")
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("FAIL  survives faults", done.stdout)
            self.assertIn("baton up", done.stdout)

    def test_nobody_there(self):
        done = self.run_it("http://127.0.0.1:9")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("FAIL  health", done.stdout)


if __name__ == "__main__":
    unittest.main()
