"""The example of training in PyTorch, going on here, and back: the losses are those of one run in
PyTorch. Without PyTorch, what it has exported before is gone on with."""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "testing"))
import report

PROGRAM = str(pathlib.Path(sys.argv.pop()).resolve())
LAUNCH = sys.argv.pop()
TRAIN = ROOT / "examples" / "interop" / "train.py"
GOLDEN = ROOT / "tests" / "golden"
PYTHON = "/usr/bin/python3"  # which has the packages of Debian


def has_torch():
    return subprocess.run([PYTHON, "-c", "import torch"], capture_output=True).returncode == 0


class Interop(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lockstep-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def losses(self, *command):
        job = subprocess.run([str(part) for part in command], cwd=self.folder, capture_output=True,
                             text=True, timeout=200)
        self.assertEqual((job.returncode, job.stderr), (0, ""))
        return [float(line) for line in job.stdout.split()]

    def here(self, ranks, *options):
        return self.losses(LAUNCH, "-n", ranks, PROGRAM, *options)

    def torch(self, *options):
        return self.losses(PYTHON, "-B", TRAIN, *options)

    def assert_equal_within_rounding(self, losses, expected):
        self.assertEqual(len(losses), len(expected))
        for loss, number in zip(losses, expected):
            self.assertLess(abs(loss - number), 1e-5 * number)

    def test_goes_on_with_what_torch_has_exported(self):
        expected = json.loads((GOLDEN / "torch_adam.json").read_text())
        options = ("--steps", 10, "--data", GOLDEN / "torch_adam_data.safetensors",
                   "--from", GOLDEN / "torch_adam.safetensors", "--to", "exported")
        for ranks in 1, 2:
            self.assert_equal_within_rounding(self.here(ranks, *options), expected[5:])

    def test_a_resumed_run_ends_with_the_bits_of_one_that_was_never_stopped(self):
        def run(steps, source, to):
            self.here(2, "--steps", steps, "--data", GOLDEN / "torch_adam_data.safetensors",
                      "--from", source, "--to", to)

        run(6, GOLDEN / "torch_adam.safetensors", "whole")
        run(2, GOLDEN / "torch_adam.safetensors", "first")
        run(4, "first", "parts")
        whole, parts = (self.folder / name for name in ("whole", "parts"))
        self.assertEqual(whole.read_bytes(), parts.read_bytes())

    @unittest.skipUnless(has_torch(), "Debian's python3-torch is not installed")
    def test_torch_lockstep_torch_has_the_losses_of_torch_alone(self):
        whole = self.torch("--steps", 45)
        for ranks in 1, 2:
            losses = self.torch("--steps", 15, "--to", "from_torch")
            losses += self.here(ranks, "--steps", 15, "--from", "from_torch", "--to", "from_lockstep")
            losses += self.torch("--steps", 15, "--from", "from_lockstep")
            self.assert_equal_within_rounding(losses, whole)

    def test_bad_input_is_one_clear_line(self):
        job = subprocess.run([LAUNCH, "-n", "2", PROGRAM, "--from", "none", "--to", "exported"],
                             cwd=self.folder, capture_output=True, text=True, timeout=200)
        self.assertEqual((job.returncode, job.stdout), (1, ""))
        self.assertRegex(job.stderr, r"\Aerror: [^\n]*'none' cannot be used: there is no such file[^\n]*\n\Z")
        self.assertEqual(list(self.folder.iterdir()), [])


report.main()
