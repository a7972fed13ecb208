"""A short chaos run (tests/chaos/run.py has the long one): random faults, and every request ends in the right text or one clear error."""
import os, sys, unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "chaos"))
import run as chaos


class Short(unittest.TestCase):
    def test_every_request_ends_right_or_in_one_clear_error(self):
        c = chaos.Chaos(chaos.options(["--requests", "90", "--fault-every", "2s", "--concurrency", "4"]))
        c.run()
        self.assertEqual(c.wrong, [], c.report())
        self.assertGreater(c.outcomes["text"], 20, c.report())  # a slow machine needs longer to start a worker than to kill one
        self.assertTrue(c.struck, "nothing struck: too short a run")


if __name__ == "__main__":
    unittest.main()
