"""Runs the program of a manual on two ranks: what it prints must be what it is expected to print."""

import pathlib
import re
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "testing"))
import report

EXPECTED = sys.argv.pop()
PROGRAM = sys.argv.pop()
LAUNCH = sys.argv.pop()


class Program(unittest.TestCase):
    def test_runs_as_the_manual_says(self):
        for ranks in (1, 2):
            job = subprocess.run([LAUNCH, "-n", str(ranks), PROGRAM], capture_output=True, text=True, timeout=120)
            self.assertEqual((job.returncode, job.stderr), (0, ""))
            self.assertRegex(job.stdout, re.compile(EXPECTED))


report.main()
