"""What a program sees that is built on mpi::Environment: exit status, messages, who ends MPI."""

import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "testing"))
import report

PROGRAM = sys.argv.pop()
LAUNCH = sys.argv.pop()


def run(what, ranks):
    return subprocess.run(
        [LAUNCH, "-n", str(ranks), PROGRAM, what], capture_output=True, text=True, timeout=60)


class Environment(unittest.TestCase):
    def test_passes_on_the_status_of_main(self):
        self.assertEqual(run("status", 1).returncode, 42)
        self.assertEqual(run("status", 2).returncode, 42)

    def test_an_error_of_all_ranks_is_printed_once(self):
        for ranks in 2, 3:
            job = run("together", ranks)
            self.assertEqual(job.returncode, 1)
            self.assertEqual(job.stderr.strip(), "error: no such file (rank 1)")

    def test_an_error_of_one_rank_ends_the_job(self):
        job = run("alone", 3)
        self.assertEqual(job.returncode, 1)
        self.assertRegex(job.stderr, r"\Aerror on rank 2 on \S+: out of luck\n  ranks 0, 1 on \S+ wait for all ranks to make a duplicate")

    def test_what_all_ranks_throw_alike_is_printed_once(self):
        job = run("everywhere", 3)
        self.assertEqual((job.returncode, job.stderr.strip()), (1, "error: no luck"))

    def test_what_each_rank_throws_is_printed_by_each(self):
        job = run("each", 2)
        self.assertEqual(job.returncode, 1)
        self.assertRegex("\n".join(sorted(job.stderr.splitlines())),
                         r"\Aerror on rank 1 on \S+: no luck at 1\nerror: no luck at 0\Z")

    def test_an_error_of_a_group_of_ranks_ends_the_job(self):
        job = run("group", 4)
        self.assertEqual(job.returncode, 1)
        self.assertIn(": no such file (rank 0)", job.stderr)

    def test_an_exception_that_leaves_main_ends_the_job(self):
        self.assertNotEqual(run("unwind", 3).returncode, 0)

    def test_an_error_of_the_only_rank_is_printed(self):
        job = run("alone", 1)
        self.assertEqual(job.returncode, 1)
        self.assertEqual(job.stderr.strip(), "error: out of luck")

    def test_ends_the_mpi_that_it_began_and_communicators_may_outlive_it(self):
        job = run("lifetime", 2)
        self.assertEqual((job.returncode, job.stdout), (0, "ended\nended\n"), job.stderr)

    def test_leaves_mpi_to_a_host_that_began_it(self):
        job = run("host-fails-together", 2)
        self.assertEqual(job.returncode, 1)
        self.assertEqual(job.stderr.strip(), "error: no such file (rank 1)")
        for rank in 0, 1:
            self.assertIn(f"rank {rank}: the host goes on with MPI, status 1", job.stdout)

    def test_passes_on_to_a_host_what_one_rank_throws(self):
        job = run("host-fails-alone", 2)
        self.assertEqual(job.returncode, 0, job.stderr)
        self.assertIn("rank 1: the host caught: out of luck", job.stdout)
        self.assertNotIn("rank 0: the host caught", job.stdout)


report.main()
