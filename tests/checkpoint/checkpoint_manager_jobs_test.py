"""Jobs that are killed, stopped by signals, and started twice: whatever happens, the next one goes on
with the last state whose save had returned, or with the one that was being saved."""

import os
import pathlib
import random
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
    def __init__(self, ranks, folder, steps, *signals):
        # How long mpirun waits from SIGTERM to SIGKILL, in any case: those that stop need some time.
        environment = {**os.environ, "OMPI_MCA_odls_base_sigkill_timeout": "5" if signals else "0"}
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

    def kill_a_rank(self, numbers):
        os.kill(numbers.choice(self.read_until("process", self.ranks)), signal.SIGKILL)

    def end(self):
        output, errors = self.process.communicate(timeout=60)
        self.lines += output.splitlines(keepends=True)
        return self.process.returncode, errors


class Jobs(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="lockstep-"))
        self.addCleanup(shutil.rmtree, self.root)
        self.folder = self.root / "run"

    def start(self, *arguments):
        job = Job(*arguments)
        self.addCleanup(job.process.stdout.close)
        self.addCleanup(job.process.stderr.close)
        self.addCleanup(job.process.kill)
        return job

    def files(self):
        return sorted(path.name for path in self.folder.iterdir())

    def test_survive_a_kill_at_any_instant(self):
        numbers = random.Random(1)
        returned = 0
        for kill in range(20):
            ranks = numbers.choice((1, 2))
            job = self.start(ranks, self.folder, FOREVER)
            loaded, = job.read_until("loaded")
            self.assertIn(loaded, (returned, returned + 1))
            saves = numbers.randrange(8)
            job.read_until("saved", saves)
            # A save takes some milliseconds.
            try:
                job.process.wait(numbers.random() * 0.02)
            except subprocess.TimeoutExpired:
                pass
            job.kill_a_rank(numbers)
            status, _ = job.end()
            self.assertNotEqual(status, 0)
            returned = max(job.said("saved"), default=loaded)
            left = [name for name in self.files() if name != ".lock" and not name.endswith(".tmp")]
            if job.said("saved"):  # and so deleted what is not kept
                self.assertLessEqual(len(left), 3)
        job = self.start(2, self.folder, 3)
        self.assertEqual(job.end(), (0, ""))
        self.assertIn(job.said("loaded")[0], (returned, returned + 1))
        last = job.said("saved")[-1]
        self.assertEqual(self.files(), [".lock", f"step-{last - 1:09}.lockstep", f"step-{last:09}.lockstep"])

    def check_stop(self, ranks, number, to_rank):
        job = self.start(ranks, self.folder, FOREVER, signal.SIGTERM, signal.SIGUSR1)
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
        shutil.rmtree(self.folder)
        return status

    def test_save_once_and_end_when_a_signal_comes_to_a_rank(self):
        for ranks in 1, 3:
            for number in signal.SIGTERM, signal.SIGUSR1:
                self.assertEqual(self.check_stop(ranks, number, to_rank=True), 0)

    def test_save_once_and_end_when_a_signal_comes_to_mpirun(self):
        self.check_stop(2, signal.SIGTERM, to_rank=False)
        self.assertEqual(self.check_stop(2, signal.SIGUSR1, to_rank=False), 0)

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
