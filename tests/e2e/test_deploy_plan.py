"""`baton deploy plan` before a person: on a terminal it asks for what the flags leave open, says what is no answer, and plans; elsewhere it never asks."""
import os, pty, select, subprocess, time, unittest

import harness


class Terminal:
    """The program on a terminal of its own."""

    def __init__(self, *args):
        self.said, self.asked, self.status = "", 0, None  # asked: up to where questions were answered
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(f"{harness.BIN}/baton", ["baton", "deploy", "plan", *args], {**os.environ, "TERM": "dumb"})

    def read(self, end):
        if not select.select([self.fd], [], [], max(0, end - time.monotonic()))[0]:
            raise AssertionError(f"it waits, and said only:\n{self.said}")
        try:
            data = os.read(self.fd, 4096)
        except OSError:  # its end is closed
            data = b""
        self.said += data.decode().replace("\r\n", "\n")
        return bool(data)

    def answer(self, question, line):
        """Waits until it asks that, then types the line."""
        end = time.monotonic() + 60
        while question not in self.said[self.asked:]:
            if not self.read(end):
                raise AssertionError(f"it ended without asking {question!r}:\n{self.said}")
        self.asked = self.said.index(question, self.asked) + len(question)
        os.write(self.fd, line.encode())

    def end(self):
        """Its exit status."""
        if self.status is None:
            end = time.monotonic() + 60
            while self.read(end):
                pass
            os.close(self.fd)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status


class Questions(unittest.TestCase):
    def test_enter_takes_what_stands_in_brackets(self):
        t = Terminal()
        for question in ("[default]: ", "[RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic]: ", "[h200]: ", "[8]: ", "[as many as can be]: "):
            t.answer(question, "\n")
        self.assertEqual(t.end(), 0, t.said)
        bare = subprocess.run([f"{harness.BIN}/baton", "deploy", "plan", "-e", "default"], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
        self.assertEqual(bare.returncode, 0, bare.stderr)
        shown = [line.strip() for line in bare.stdout.splitlines() if "prefill" in line and "x" in line]
        self.assertTrue(shown, bare.stdout)
        plain = t.said.replace("\x1b[1m", "").replace("\x1b[0m", "")
        for line in shown:
            self.assertIn(line, plain, "the plan of the same environment")

    def test_answers_are_taken_and_nonsense_is_asked_again(self):
        t = Terminal()
        t.answer("[default]: ", "nowhere\n")
        t.answer("that is none", "")
        t.answer("[default]: ", "amd\n")
        t.answer("[amd/Llama-3.3-70B-Instruct-FP8-KV]: ", "meta-llama/Llama-3.1-8B-Instruct\n")
        t.answer("device [mi300x]: ", "abacus\n")
        t.answer("that is none", "")
        t.answer("device [mi300x]: ", "mi325x\n")
        t.answer("how many of them [8]: ", "minus one\n")
        t.answer("that is none", "")
        t.answer("how many of them [8]: ", "16\n")
        t.answer("requests a second", "3\n")
        self.assertEqual(t.end(), 0, t.said)
        for word in ("MI325X", "Llama-3.1-8B-Instruct", "amd"):
            self.assertIn(word, t.said[t.asked:])

    def test_flags_are_not_asked_for(self):
        t = Terminal("-e", "kind", "--model", "smollm2", "--device", "cpu2", "--devices", "2", "--rate", "0.1", "--prompt-tokens", "100", "--output-tokens", "50", "--tpot", "1000", "--ttft", "60000")
        self.assertEqual(t.end(), 0, t.said)
        self.assertNotIn("]: ", t.said)

    def test_a_terminal_that_closes_ends_the_questions(self):
        t = Terminal()
        t.answer("[default]: ", "kind\n")
        t.answer("[smollm2]: ", "\x04")  # end of input: what is left is the guide's
        self.assertEqual(t.end(), 0, t.said)
        self.assertIn("smollm2", t.said[t.asked:])


if __name__ == "__main__":
    unittest.main()
