"""What becomes of a training of which one rank fails: for each fault one of the cells of docs/faults.md, all of which
scripts/test --all tries."""

import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "testing"))
import report
from virtual_hosts import need_hosts

PROGRAMS = sys.argv.pop()
FAULTS = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "faults"


class Faults(unittest.TestCase):
    def test_each_fault_ends_as_the_manual_says(self):
        need_hosts()
        job = subprocess.run([FAULTS, "--sample", "--programs", PROGRAMS], capture_output=True, text=True, timeout=500)
        self.assertEqual(job.returncode, 0, job.stdout + job.stderr)
        self.assertRegex(job.stdout, r"\n15 cells, 0 not as they should be\n\Z")

    def test_the_table_of_the_manual_is_of_all_cells(self):
        manual = (FAULTS.parents[1] / "docs" / "faults.md").read_text()
        rows = [line for line in manual.splitlines() if line.count(" | ") == 5]
        self.assertEqual(len(rows), 1 + 1 + 15 * 3)


report.main()
