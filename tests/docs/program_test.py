"""Runs a program of a manual on one rank and on two: what it prints must be what it is expected to print."""

import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "testing"))
import report

EXPECTED = sys.argv.pop()
PROGRAM = pathlib.Path(sys.argv.pop()).resolve()
LAUNCH = sys.argv.pop()


class Program(unittest.TestCase):
    def test_runs_as_the_manual_says(self):
        for ranks in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                job = subprocess.run([LAUNCH, "-n", str(ranks), PROGRAM], cwd=folder, capture_output=True, text=True,
                                     timeout=120)
            self.assertEqual((job.returncode, job.stderr), (0, ""))
            self.assertRegex(job.stdout, re.compile(EXPECTED))


report.main()
