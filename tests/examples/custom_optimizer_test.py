"""The example of an update rule of one's own: it learns, and goes on where it stopped."""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "testing"))
import checkpoints
import report

PROGRAM = str(pathlib.Path(sys.argv.pop()).resolve())
LAUNCH = sys.argv.pop()


class Example(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lockstep-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def run_example(self, ranks, *arguments, status=0):
        result = subprocess.run(
            [LAUNCH, "-n", str(ranks), PROGRAM, *arguments],
            cwd=self.folder, capture_output=True, text=True, timeout=200)
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        return result.stdout + result.stderr

    def test_learns(self):
        output = self.run_example(2, "--steps", "1500")
        errors = [float(number) for number in re.findall(r"error ([0-9.e+-]+)", output)]
        self.assertEqual(len(errors), 3)
        self.assertLess(errors[-1], 1e-4)
        self.assertLess(errors[-1], errors[0] / 10)

    def test_a_resumed_run_ends_with_the_bits_of_one_that_was_never_stopped(self):
        self.run_example(2, "--steps", "60", "--checkpoint", "whole")
        self.run_example(2, "--steps", "20", "--checkpoint", "parts")
        self.run_example(2, "--steps", "60", "--checkpoint", "parts", "--resume")
        whole, parts = (self.folder / name for name in ("whole", "parts"))
        self.assertEqual(checkpoints.state_in(whole), checkpoints.state_in(parts))

    def test_goes_on_on_another_number_of_ranks(self):
        self.run_example(2, "--steps", "5")
        self.run_example(3, "--steps", "10", "--resume")

    def test_bad_input_is_one_clear_line(self):
        output = self.run_example(2, "--lr", "-1", status=1)
        self.assertEqual(output.strip(), "error: AdaBelief: expected lr >= 0, found -1")
        self.run_example(1, "--steps", "0", status=105)
        self.assertEqual(list(self.folder.iterdir()), [])


report.main()
