"""The example of training inside a simulation: its solver, its surrogate, and its checkpoints on any number of ranks."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "testing"))
import checkpoints
import report

TOOL = str(pathlib.Path(sys.argv.pop()).resolve())
PROGRAM = str(pathlib.Path(sys.argv.pop()).resolve())
LAUNCH = sys.argv.pop()

STEPS = 30
SMALL = ("--cells", 24, "--steps", STEPS, "--compare-steps", 12, "--train-steps", 12, "--batch", 256, "--lr", 0.02)


def checkpoint(folder, step=STEPS):
    return folder / "checkpoints" / f"step-{step:09}.lockstep"


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()[1:]]


def percent(name, output):
    return float(re.search(rf"([0-9.]+) % of the {name}", output)[1])


def difference(a, b, *options):
    """What the lockstep command finds different in two checkpoints, by the first part of its path."""
    job = subprocess.run([TOOL, "diff", "--json", *options, str(a), str(b)], capture_output=True, text=True)
    found = json.loads(job.stdout)
    return {entry["path"][0] for entry in found["values"] + found["tensors"]}


def run_example(ranks, *arguments, status=0):
    job = subprocess.run([LAUNCH, "-n", str(ranks), PROGRAM, *map(str, arguments)], capture_output=True, text=True,
                         timeout=200)
    if job.returncode != status:
        raise AssertionError(f"status {job.returncode}: {job.stdout}{job.stderr}")
    return job.stdout + job.stderr


class HeatSurrogate(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.whole = pathlib.Path(tempfile.mkdtemp(prefix="lockstep-"))
        cls.addClassCleanup(shutil.rmtree, cls.whole)
        cls.whole_output = run_example(2, *SMALL, "--out", cls.whole)

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lockstep-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def test_the_solver_gives_the_same_bits_on_any_number_of_ranks(self):
        # 3 does not divide 25.
        solver = ("--cells", 25, "--steps", 16, "--compare-steps", 0, "--train-steps", 0)
        for ranks in 1, 2, 3, 4:
            run_example(ranks, *solver, "--out", self.folder / str(ranks))
        one = checkpoint(self.folder / "1", 16)
        for ranks in 2, 3, 4:
            other = checkpoint(self.folder / str(ranks), 16)
            self.assertLessEqual(difference(one, other), {"reservoir"}, ranks)

    def test_the_surrogate_is_close_to_the_exact_term(self):
        self.assertLess(percent("temperature", self.whole_output), 2)
        self.assertLess(percent("fuel", self.whole_output), 2)
        self.assertLess(percent("cells", self.whole_output), 20)
        self.assertRegex(self.whole_output, r"speed-up +[0-9.]+ times")
        losses = [record["loss"] for record in metrics(self.whole)]
        self.assertEqual(len(losses), STEPS)
        self.assertLess(losses[-1], losses[0] / 50)

    def test_ranks_without_burning_cells_take_part(self):
        records = metrics(self.whole)
        self.assertEqual(records[0]["burning_cells"][1], 0)
        self.assertGreater(records[0]["burning_cells"][0], 0)
        self.assertEqual({record["training_steps"] for record in records}, {12})

    def test_the_picture_is_well_formed(self):
        name = "{http://www.w3.org/2000/svg}"
        root = xml.etree.ElementTree.parse(self.whole / "heat_surrogate.svg").getroot()
        self.assertEqual(root.tag, name + "svg")
        texts = [text.text for text in root.iter(name + "text")]
        for title in "temperature, exact", "temperature, surrogate", "surrogate − exact", "time step":
            self.assertIn(title, texts)
        self.assertEqual(len(root.findall(name + "svg")), 1)

    def test_a_resumed_run_ends_with_the_bits_of_one_that_was_never_stopped(self):
        output = run_example(2, *SMALL, "--out", self.folder, "--stop-after", STEPS - 2)
        self.assertIn(f"stopped after time step {STEPS - 2}: go on with --resume", output)
        output = run_example(2, *SMALL, "--out", self.folder, "--resume")
        self.assertIn(f"resumed after {STEPS - 2}", output)
        self.assertEqual(*(checkpoints.state_in(checkpoint(folder)) for folder in (self.whole, self.folder)))
        self.assertEqual(metrics(self.whole), metrics(self.folder))
        for name in "temperature", "cells":
            self.assertEqual(percent(name, output), percent(name, self.whole_output))

    def test_goes_on_on_another_number_of_ranks(self):
        run_example(4, *SMALL, "--out", self.folder, "--stop-after", 12)
        output = run_example(3, *SMALL, "--out", self.folder, "--resume")
        self.assertLess(percent("temperature", output), 2)
        # While it trains, the exact term is what moves the fields.
        differing = difference(checkpoint(self.whole), checkpoint(self.folder))
        self.assertNotIn("fields", differing)
        self.assertIn("model", differing)

    def test_trains_within_a_budget_of_seconds(self):
        run_example(2, "--cells", 24, "--steps", 3, "--compare-steps", 0, "--budget", 0.05,
                         "--out", self.folder)
        self.assertGreater(sum(record["training_steps"] for record in metrics(self.folder)), 0)

    def test_bad_input_is_one_clear_line(self):
        def fails(expected, status, *arguments):
            output = run_example(2, *arguments, "--out", self.folder / "none", status=status)
            self.assertEqual(output.strip(), expected)

        fails("error: --cells: Value 2 not in range 8 to 10000 (try --help)", 2, "--cells", 2)
        fails("error: --budget excludes --train-steps (try --help)", 2, "--budget", 1, "--train-steps", 1)
        fails(f"error: --resume: there is no '{self.folder}/none/checkpoints' (rank 0)", 1, "--resume")
        self.assertFalse((self.folder / "none").exists())
        output = run_example(2, *SMALL, "--out", self.whole, status=1)
        self.assertEqual(output.strip(), f"error: '{checkpoint(self.whole)}' exists: pass --resume to go on "
                                         "with it, or another --out")
        output = run_example(2, *SMALL, "--out", self.whole, "--resume", "--stop-after", 5, status=1)
        self.assertEqual(output.strip(), f"error: '{checkpoint(self.whole)}' is of time step {STEPS}: "
                                         "expected at most 5")


report.main()
