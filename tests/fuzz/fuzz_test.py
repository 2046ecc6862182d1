"""Runs a libFuzzer target on its corpus and on some thousand inputs made of it."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "testing"))
import report

CORPUS, DICTIONARY, PROGRAM = sys.argv.pop(), sys.argv.pop(), sys.argv.pop()
RUNS = 2000


class Fuzz(unittest.TestCase):
    def test_finds_nothing(self):
        # No input is longer than 4 KB: one that takes a megabyte at once, or a hundred in all, is reported.
        with tempfile.TemporaryDirectory() as folder:
            job = subprocess.run(
                [PROGRAM, f"-runs={RUNS}", "-seed=1", "-max_len=4096", "-malloc_limit_mb=1",
                 "-rss_limit_mb=200", "-timeout=60", f"-dict={DICTIONARY}", "-print_final_stats=1",
                 f"-artifact_prefix={folder}/", folder, CORPUS],
                capture_output=True, text=True, errors="replace", timeout=280,
                env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=8"})
        self.assertEqual(job.returncode, 0, job.stderr[-8000:])
        counts = re.search(r"(\d+) accepted, (\d+) refused behind .*, (\d+) before", job.stdout)
        accepted, behind, before = map(int, counts.groups())
        self.assertGreaterEqual(accepted + behind + before, RUNS)
        # What is checked first keeps out no more than a part.
        self.assertGreater(accepted, RUNS / 100)
        self.assertGreater(behind, RUNS / 5)
        self.assertGreater(before, RUNS / 20)


report.main()
