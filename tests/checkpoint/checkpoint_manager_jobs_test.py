"""Jobs that are stopped by signals, and started twice: the next one goes on with the last state."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "testing"))
import report

PROGRAM = sys.argv.pop()
LAUNCH = sys.argv.pop()
FOREVER = 10**12


class Job:
    def __init__(self, ranks, folder, steps, *signals, save_seconds=0):
        # How long mpirun waits from SIGTERM to SIGKILL, in any case.
        environment = {**os.environ, "OMPI_MCA_odls_base_sigkill_timeout": "0",
                       "LOCKSTEP_SAVE_SECONDS": str(save_seconds)}
        self.ranks = ranks
        self.process = subprocess.Popen(
            [LAUNCH, "-n", str(ranks), PROGRAM, str(folder), str(steps), *map(str, map(int, signals))],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        self.lines = []

    def read_until(self, what, count=1):
        """The numbers after a word, once there are so many."""
        while len(self.said(what)) < count:
            line = self.process.stdout.readline()
            if not line:
                raise AssertionError(f"no '{what}' in {self.lines}: {self.process.stderr.read()}")
            self.lines.append(line)
        return self.said(what)

    def said(self, what):
        found = (re.fullmatch(rf"{what} (\d+)\n", line) for line in self.lines)
        return [int(match[1]) for match in found if match]

    def end(self):
        output, errors = self.process.communicate(timeout=60)
        self.lines += output.splitlines(keepends=True)
        return self.process.returncode, errors


class Jobs(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="lockstep-"))
        self.addCleanup(shutil.rmtree, self.root)
        self.folder = self.root / "run"

    def start(self, *arguments, **options):
        job = Job(*arguments, **options)
        self.addCleanup(job.process.stdout.close)
        self.addCleanup(job.process.stderr.close)
        self.addCleanup(job.process.kill)
        return job

    def check_stop(self, ranks, number, to_rank, save_seconds=0):
        job = self.start(ranks, self.folder, FOREVER, signal.SIGTERM, signal.SIGUSR1, save_seconds=save_seconds)
        job.read_until("at")
        processes = job.read_until("process", ranks)
        os.kill(processes[-1] if to_rank else job.process.pid, number)
        status, errors = job.end()
        self.assertEqual(errors, "")
        ends = job.said("ended")
        self.assertEqual(len(ends), ranks, job.lines)
        self.assertEqual(job.said("saved"), ends[:1])
        self.assertEqual(set(ends), {ends[0]})
        again = self.start(ranks, self.folder, 0)
        self.assertEqual(again.end(), (0, ""))
        self.assertEqual(again.said("loaded"), ends[:1])
        self.assertEqual(status, 0)
        shutil.rmtree(self.folder)

    def test_save_once_and_end_when_a_signal_comes_to_a_rank(self):
        for ranks in 1, 3:
            for number in signal.SIGTERM, signal.SIGUSR1:
                self.check_stop(ranks, number, to_rank=True)

    def test_save_once_and_end_when_a_signal_comes_to_the_launcher(self):
        self.check_stop(2, signal.SIGTERM, to_rank=False)
        self.check_stop(2, signal.SIGUSR1, to_rank=False)

    def test_have_time_for_a_save_that_takes_longer_than_mpirun_waits(self):
        self.check_stop(2, signal.SIGTERM, to_rank=False, save_seconds=3)

    def test_are_refused_a_folder_in_use_until_its_job_was_killed(self):
        first = self.start(2, self.folder, FOREVER)
        first.read_until("saved")
        owners = first.read_until("process", 2)
        second = self.start(2, self.folder, 1)
        status, errors = second.end()
        self.assertEqual(status, 1)
        self.assertEqual(errors.count("is in use by process"), 1, errors)
        owner = int(re.search(rf"'{self.folder}' is in use by process (\d+) on host \S+ since 20", errors)[1])
        self.assertIn(owner, owners)
        first.read_until("saved", 3)
        os.kill(owner, signal.SIGKILL)
        first.end()
        third = self.start(2, self.folder, 1)
        self.assertEqual(third.end(), (0, ""))


report.main()
