"""scripts/torture: 200 kills lose nothing; and what it says of programs that lose something."""

import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "testing"))
import report

PROGRAMS = sys.argv.pop()
TORTURE = sys.argv.pop()


def torture(programs, kills, *options):
    return subprocess.run([TORTURE, "--programs", programs, "--kills", str(kills), *options],
                          capture_output=True, text=True, timeout=280)


class Torture(unittest.TestCase):
    def assert_loses(self, script, message):
        with tempfile.TemporaryDirectory() as folder:
            for name in "checkpoint_save_fixture", "checkpoint_manager_fixture":
                program = pathlib.Path(folder) / name
                program.write_text(f"#!/bin/bash\necho process $$\n{script}\n")
                program.chmod(0o755)
            job = torture(folder, 4, "--seconds", "0.5", "--ranks", "1")
        self.assertEqual(job.returncode, 1, job.stderr)
        self.assertRegex(job.stdout, r", [12] losses\n$")
        self.assertRegex(job.stderr, message)

    def test_of_200_kills_loses_nothing(self):
        job = torture(PROGRAMS, 200, "--runs", "4", "--seconds", "0.15")
        self.assertEqual((job.returncode, job.stderr), (0, ""), job.stdout)
        counts = re.fullmatch(r"200 kills \((\d+) of one rank, (\d+) of all; (\d+) within a write\), (\d+) saves, "
                              r"0 losses\n", job.stdout)
        self.assertTrue(counts, job.stdout)
        # They are neither before all saves nor after them.
        self.assertTrue(all(int(count) > 20 for count in counts.groups()), job.stdout)

    def test_of_a_program_that_begins_anew_says_so(self):
        self.assert_loses("echo loaded 0; echo saved 1; sleep 100",
                          r"run-\d: save 1 had returned, 0 was loaded")

    def test_of_a_program_that_cannot_load_says_so(self):
        self.assert_loses("echo damaged >&2; exit 1", r"run-\d: .* ended .*\ndamaged")


report.main()
