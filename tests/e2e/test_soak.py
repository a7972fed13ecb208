"""A short soak (tests/soak/run.py has the long one): cancels, nonsense and a pool that is too small, and every answer is right."""
import importlib.machinery, os, unittest

HERE = os.path.dirname(os.path.realpath(__file__))
soak = importlib.machinery.SourceFileLoader("soak", os.path.join(HERE, "..", "soak", "run.py")).load_module()  # "run" is several files' name


class Short(unittest.TestCase):
    def test_nothing_leaks_hangs_or_goes_wrong(self):
        s = soak.Soak(soak.options(["--minutes", "0.2", "--compare", "12"])).run()
        self.assertEqual(s.problems, [], s.report())
        self.assertGreater(s.compared, 5, s.report())
        self.assertGreater(s.aborted, 0, s.report())
        self.assertGreater(s.preemptions, 0, s.report())
