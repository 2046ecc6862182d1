"""Tests of the test main: what it reports when the tests of fixture.cpp fail."""

import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

import report

# Of the tests that are asked for, which are none of those that it starts.
os.environ.pop("LOCKSTEP_TEST_ONLY", None)
PROGRAM = sys.argv.pop()
LAUNCH = sys.argv.pop()
# Crashes on purpose leave no core files.
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run(names, ranks=2, deadline=60, options=()):
    tests = ":".join(name if "." in name else f"Fixture.{name}" for name in names.split())
    return subprocess.run(
        [LAUNCH, "-n", str(ranks), PROGRAM, f"--gtest_filter={tests}", *options],
        capture_output=True, text=True, timeout=120,
        env={**os.environ, "LOCKSTEP_TEST_DEADLINE": str(deadline)})


def last_line(job):
    return job.stdout.rstrip("\n").rpartition("\n")[2]


def by_rank(job):
    return sorted(re.split(r"(?=\[rank \d\] no end)", job.stderr)[1:])


class Harness(unittest.TestCase):
    def assert_ends(self, job, passed, failed, skipped, status=None):
        output = job.stdout + job.stderr
        self.assertEqual(
            last_line(job), f"{passed} passed, {failed} failed, {skipped} skipped", output)
        if status is None:
            status = 1 if failed else 0
        self.assertEqual(job.returncode, status, output)

    def test_counts_what_passes_and_what_is_skipped(self):
        job = run("passes passes_too skips")
        self.assert_ends(job, 2, 0, 1)
        self.assertIn("skip Fixture.skips (not today)", job.stdout)
        self.assertEqual(job.stderr, "")

    def test_a_failure_of_one_rank_is_a_failure_and_names_it(self):
        job = run("passes fails_on_rank_1 passes_too")
        self.assert_ends(job, 2, 1, 0)
        self.assertRegex(job.stdout, r"\[rank 1\] \S*fixture\.cpp:\d+: ")
        self.assertIn("[rank 1] first line\n[rank 1] second line\n", job.stdout)
        self.assertNotIn("[rank 0]", job.stdout)

    def test_an_exception_of_one_rank_is_a_failure(self):
        job = run("throws_on_rank_1 passes")
        self.assert_ends(job, 1, 1, 0)
        self.assertRegex(job.stdout, r"\[rank 1\] .*thrown here")

    def test_a_skip_of_one_rank_is_a_failure(self):
        job = run("skips_on_rank_1 passes")
        self.assert_ends(job, 1, 1, 0)
        self.assertIn("skipped on some ranks only", job.stdout)

    def test_failures_around_the_tests_of_a_suite_count(self):
        job = run("BadSetUp.* BadTearDown.* passes")
        self.assert_ends(job, 2, 3, 0)
        self.assertRegex(job.stdout, r"\[rank 1\] in the set-up")
        self.assertRegex(job.stdout, r"\[rank 1\] in the tear-down")

    def test_a_rank_that_does_not_end_is_reported_by_all(self):
        job = run("passes passes_too hangs_on_rank_1", deadline=4)
        self.assert_ends(job, 2, 1, 0, status=124)
        where = "no end after 4 s in Fixture.hangs_on_rank_1"
        rank_0, rank_1 = by_rank(job)
        self.assertIn(f"[rank 0] {where}: this rank has finished it", rank_0)
        self.assertIn(f"[rank 1] {where}\n", rank_1)
        self.assertIn("spin_forever", rank_1)

    def test_a_rank_that_leaves_early_is_reported_with_its_failure(self):
        job = run("passes leaves_early_on_rank_1", deadline=4)
        self.assert_ends(job, 1, 1, 0, status=124)
        where = "no end after 4 s in Fixture.leaves_early_on_rank_1"
        rank_0, rank_1 = by_rank(job)
        self.assertIn(f"[rank 0] {where}\n", rank_0)
        self.assertIn("Fixture_leaves_early_on_rank_1_Test::TestBody()", rank_0)
        self.assertIn(f"[rank 1] {where}: this rank has finished it and waits", rank_1)
        self.assertIn("[rank 1] left here", rank_1)

    def test_a_killed_rank_ends_the_job(self):
        self.assertEqual(run("passes is_killed_on_rank_1").returncode, 128 + 9)

    def test_a_rank_that_exits_ends_the_job(self):
        job = run("passes exits_on_rank_1")
        self.assertNotIn("passed,", job.stdout)
        # MPICH's launcher kills the others, and reports the status of the rank that has exited, which is 0.
        if os.environ.get("LOCKSTEP_MPI") != "mpich":
            self.assertNotEqual(job.returncode, 0)

    def test_a_crash_is_reported_with_the_failures_before_it(self):
        job = run("passes crashes_on_rank_1")
        self.assertNotEqual(job.returncode, 0)
        if "AddressSanitizer" not in job.stderr:
            self.assertRegex(job.stderr, r"\[rank 1\] SIGSEGV in Fixture\.crashes_on_rank_1\n    at ")
            self.assertIn("[rank 1] noticed before", job.stderr)

    def test_an_mpi_error_that_nobody_handles_is_reported(self):
        job = run("passes misuses_mpi_on_rank_1")
        self.assertNotEqual(job.returncode, 0)
        # As Open MPI and MPICH have it.
        self.assertRegex(job.stderr, "MPI error that nobody handles: (MPI_ERR_COMM|Invalid communicator)")
        self.assertIn("[rank 1] SIGABRT in Fixture.misuses_mpi_on_rank_1\n    at ", job.stderr)

    def test_another_number_of_ranks_than_declared_fails(self):
        for ranks in 1, 3:
            job = run("passes", ranks=ranks)
            self.assert_ends(job, 0, 1, 0, status=2)
            self.assertRegex(job.stdout, rf"no test of that name runs on {ranks} ranks\n  \S*fixture\.cpp: on 2 ranks\n")

    def test_a_collective_assertion_ends_the_test_on_all_ranks(self):
        for name, text in (("ends_with_an_assertion_of_rank_1", "asserted here"),
                           ("ends_with_a_function_that_rank_1_has_left", "in a function"),
                           ("ends_with_an_exception_of_rank_1", "an exception: thrown within")):
            with self.subTest(name=name):
                job = run(f"OnAllRanks.{name}")
                self.assert_ends(job, 0, 1, 0)
                self.assertRegex(job.stdout, rf"\[rank 1\] (.*\n)*.*{text}")
                self.assertNotIn("went on", job.stdout)
                self.assertNotIn("[rank 0]", job.stdout)

    def test_a_skip_in_a_collective_assertion_is_one_of_all_ranks(self):
        job = run("OnAllRanks.ends_with_a_skip_of_rank_1")
        self.assert_ends(job, 0, 0, 1)
        self.assertNotIn("went on", job.stdout)

    def test_a_collective_assertion_goes_on_where_nothing_is_fatal(self):
        job = run("OnAllRanks.goes_on_where_all_is_well_or_nothing_is_fatal")
        self.assert_ends(job, 0, 1, 0)
        self.assertEqual(re.findall(r"\[rank (\d)\] (goes on|the end|.*one statement)", job.stdout),
                         [("0", "the end"), ("1", "goes on"), ("1", "the end")])

    def results(self, names, **options):
        """The tests of the file that rank 0 writes: by name, what has failed."""
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "results.xml"
            run(names, options=[f"--gtest_output=xml:{file}"], **options)
            self.assertEqual([path.name for path in file.parent.iterdir()], ["results.xml"])
            return {case.get("name"): [failure.text for failure in case.findall("failure")]
                    for case in xml.etree.ElementTree.parse(file).iter("testcase")
                    if case.get("status") == "run"}

    def test_writes_one_file_with_the_failures_of_all_ranks(self):
        results = self.results("passes fails_on_rank_1")
        self.assertEqual(results["passes"], [])
        failure, = results["fails_on_rank_1"]
        self.assertTrue(failure.startswith("rank 1"), failure)
        self.assertIn("fixture.cpp", failure)
        self.assertIn("first line\nsecond line", failure)

    def test_writes_it_where_a_rank_does_not_end(self):
        results = self.results("passes hangs_on_rank_1", deadline=4)
        self.assertEqual(results["passes"], [])
        failure, = results["hangs_on_rank_1"]
        self.assertIn("no end after 4 s in Fixture.hangs_on_rank_1", failure)

    def test_options_and_variables_of_rank_0_are_those_of_all(self):
        def flags(*options, **variables):
            command = 'test "${OMPI_COMM_WORLD_RANK-$PMI_RANK}" != 0 || { ' + "".join(
                f"export {name}={value}; " for name, value in variables.items())
            command += 'set -- "$@" ' + " ".join(options) + '; }; exec "$@"'
            return subprocess.run([LAUNCH, "-n", "2", "sh", "-c", command, "sh", PROGRAM],
                                  capture_output=True, text=True, timeout=60)

        job = flags("--gtest_filter=Flags.*")
        self.assert_ends(job, 1, 0, 0)
        self.assertEqual(sorted(job.stderr.split("\n")), ["", "rank 0", "rank 1"])
        job = flags("--gtest_repeat=3", GTEST_FILTER="'Flags.*'")
        self.assert_ends(job, 3, 0, 0)
        self.assertEqual(sorted(job.stderr.split("\n")), ["", *3 * ["rank 0"], *3 * ["rank 1"]])
        self.assert_ends(flags(LOCKSTEP_TEST_ONLY="Flags.are_those_of_rank_0"), 1, 0, 0)

    def test_says_on_how_many_ranks_it_has_tests(self):
        listing = subprocess.run([PROGRAM, "--ranks"], capture_output=True, text=True, timeout=60)
        self.assertEqual((listing.returncode, listing.stdout), (0, "2\n"))

    def test_lists_its_tests_without_mpirun(self):
        listing = subprocess.run(
            [PROGRAM, "--gtest_list_tests"], capture_output=True, text=True, timeout=60)
        self.assertEqual(listing.returncode, 0)
        self.assertIn("  hangs_on_rank_1\n", listing.stdout)

    def test_shuffles_alike_on_all_ranks(self):
        job = subprocess.run(
            [LAUNCH, "-n", "2", PROGRAM, "--gtest_shuffle",
             "--gtest_filter=Fixture.passes*:Fixture.skips"],
            capture_output=True, text=True, timeout=60)
        self.assert_ends(job, 2, 0, 1)


report.main()
