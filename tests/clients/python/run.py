"""Runs the suite and counts it: `run.py [pattern]`, e.g. `run.py 'test_cancel*'`."""

import collections
import pathlib
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent


class Counted(unittest.TextTestResult):
    """Counts what passed too: what a class failed to prepare is an error and no test."""

    passed = 0

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1


def main():
    pattern = sys.argv[1] if len(sys.argv) > 1 else "test_*.py"
    suite = unittest.TestLoader().discover(str(HERE), pattern=pattern, top_level_dir=str(HERE))
    result = unittest.TextTestRunner(verbosity=2, resultclass=Counted).run(suite)
    bad = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    skipped = len(result.skipped)
    for why, count in sorted(collections.Counter(why for _, why in result.skipped).items()):
        print("SKIPPED %d: %s" % (count, why))
    print("clients, python: %d ran, %d passed, %d failed, %d skipped"
          % (result.testsRun, result.passed, bad, skipped))
    # A run of nothing must not look like a pass.
    return 1 if bad or not result.passed else 0


if __name__ == "__main__":
    sys.exit(main())
