"""Hosts in C that begin and end MPI in each way that there is: no crash, no hang, and no words of the library's."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "testing"))
import report

PROGRAM = sys.argv.pop()
LAUNCH = sys.argv.pop()
LEVELS = ["single", "funneled", "serialized", "multiple"]


class Host(unittest.TestCase):
    def check(self, begin, end):
        for ranks in (1, 2, 4):
            with self.subTest(begin=begin, ranks=ranks), tempfile.TemporaryDirectory() as folder:
                job = subprocess.run([LAUNCH, "-n", str(ranks), PROGRAM, begin, end, folder],
                                     capture_output=True, text=True, timeout=60)
                self.assertEqual((job.returncode, job.stdout, job.stderr), (0, ranks * "ended\n", ""))

    def test_trains_at_each_thread_level(self):
        for level in LEVELS:
            self.check(level, "drop")

    def test_trains_where_the_library_has_to_begin_mpi(self):
        self.check("library", "drop")

    def test_leaves_an_mpi_that_the_host_began_to_the_host(self):
        self.check("both", "drop")

    def test_gets_a_status_from_each_collective_call_after_mpi_has_ended(self):
        for begin in ("single", "multiple"):
            self.check(begin, "finalize")


report.main()
