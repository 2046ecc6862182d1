"""A host that ends its own MPI before it drops what it has of lockstep: no crash, no hang, no words."""

import itertools
import os
import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "testing"))
import report

PROGRAM = sys.argv.pop()
LAUNCH = sys.argv.pop()
MPICH = os.environ.get("LOCKSTEP_MPI") == "mpich"


class Host(unittest.TestCase):
    def check(self, end):
        for memory, nodes, ranks in itertools.product(("shared", "ordinary"), (1, 2), (1, 2, 4)):
            if nodes > ranks:
                continue
            # By the standard a program must not; Open MPI lets it, and MPICH waits for ever in MPI_Finalize where a
            # message of more than a few KiB has no receiver.
            if MPICH and end == "under-way" and memory == "ordinary" and ranks > 2:
                continue
            with self.subTest(memory=memory, nodes=nodes, ranks=ranks):
                job = subprocess.run(
                    [LAUNCH, "-n", str(ranks), PROGRAM, memory, str(nodes), end],
                    capture_output=True, text=True, timeout=60)
                self.assertEqual((job.returncode, job.stdout, job.stderr),
                                 (0, ranks * "ended\n", ""))

    def test_a_call_of_another_thread_than_mpi_allows_is_an_error_on_all_ranks(self):
        for end, what in (("thread-reduces", "gradients are reduced"), ("thread-waits", "a collective call")):
            for ranks in (1, 2, 4):
                job = subprocess.run([LAUNCH, "-n", str(ranks), PROGRAM, "shared", "1", end],
                                     capture_output=True, text=True, timeout=60)
                message = f"{what} on a thread of rank {ranks - 1} that must not call MPI"
                self.assertEqual((job.returncode, job.stdout.count(message), job.stderr), (0, ranks, ""),
                                 job.stdout)

    def test_reads_results_after_mpi_and_drops_all_in_another_order_on_each_rank(self):
        self.check("dropped-after")

    def test_may_close_its_communicators_first(self):
        self.check("closed")

    def test_may_drop_all_in_another_order_on_each_rank_before_mpi_ends(self):
        self.check("dropped-before")

    def test_may_end_with_reductions_under_way(self):
        self.check("under-way")


report.main()
