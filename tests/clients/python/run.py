"""Runs the suite and counts it: `run.py [pattern]`, e.g. `run.py 'test_cancel*'`."""

import collections
import pathlib
import shutil
import sys
import unittest

import launcher

HERE = pathlib.Path(__file__).resolve().parent


def main():
    pattern = sys.argv[1] if len(sys.argv) > 1 else "test_*.py"
    suite = unittest.TestLoader().discover(str(HERE), pattern=pattern, top_level_dir=str(HERE))
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    shutil.rmtree(launcher.HOME, ignore_errors=True)
    bad = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    skipped = len(result.skipped)
    for why, count in sorted(collections.Counter(why for _, why in result.skipped).items()):
        print("SKIPPED %d: %s" % (count, why))
    print("clients, python: %d ran, %d passed, %d failed, %d skipped"
          % (result.testsRun, result.testsRun - bad - skipped, bad, skipped))
    # A run of nothing must not look like a pass.
    return 1 if bad or result.testsRun <= skipped else 0


if __name__ == "__main__":
    sys.exit(main())
