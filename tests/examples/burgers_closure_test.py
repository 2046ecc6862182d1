"""The example in Fortran: what its closure learns, and its checkpoints on any number of ranks."""

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

STEPS = 160
SMALL = ("--members", 3, "--steps", STEPS, "--train-steps", 4, "--batch", 128, "--width", 16, "--lr", 0.02,
         "--test-members", 2, "--test-steps", 150)
QUICK = (*SMALL, "--steps", 20, "--train-steps", 2, "--test-steps", 10)


def checkpoint(folder, step=STEPS):
    return folder / "checkpoints" / f"step-{step:09}.lockstep"


def results(output):
    """The lines about each solver without and with closures."""
    return re.findall(r"^([A-Za-z, ]+?) +([0-9.]+) % +([0-9.]+) % +off by +([0-9.]+) decades$", output, re.MULTILINE)


def differing_items(a, b):
    job = subprocess.run([TOOL, "diff", "--json", str(a), str(b)], capture_output=True, text=True)
    found = json.loads(job.stdout)
    return {entry["path"][0] for entry in found["values"] + found["tensors"]}


def run_example(ranks, *arguments, status=0):
    job = subprocess.run([LAUNCH, "-n", str(ranks), PROGRAM, *map(str, arguments)], capture_output=True, text=True,
                         timeout=200)
    if job.returncode != status:
        raise AssertionError(f"status {job.returncode}: {job.stdout}{job.stderr}")
    return job.stdout + job.stderr


class BurgersClosure(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.whole = pathlib.Path(tempfile.mkdtemp(prefix="lockstep-"))
        cls.addClassCleanup(shutil.rmtree, cls.whole)
        cls.whole_output = run_example(2, *SMALL, "--out", cls.whole)

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lockstep-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def assert_learned(self, output):
        found = {name: [float(number) for number in numbers] for name, *numbers in results(output)}
        self.assertEqual(list(found), ["no closure", "Smagorinsky", "Smagorinsky, fitted", "learned"])
        none, usual, fitted, learned = (dict(zip(("error", "end", "spectrum"), numbers)) for numbers in found.values())
        for number in "error", "end":
            self.assertLess(learned[number], none[number] / 2)
            self.assertLess(learned[number], usual[number] / 1.5)
            self.assertLess(learned[number], fitted[number])
        self.assertLess(learned["spectrum"], 0.1)
        self.assertGreater(none["spectrum"], 0.3)

    def test_the_learned_closure_is_closer_to_the_fine_solution_on_any_number_of_ranks(self):
        self.assert_learned(self.whole_output)
        for ranks in 1, 3:
            output = run_example(ranks, *SMALL, "--out", self.folder / str(ranks))
            self.assert_learned(output)
            # No closure depends on training, nor the members on the number of ranks.
            self.assertEqual(results(output)[:2], results(self.whole_output)[:2])
            self.assertNotIn("simulation", differing_items(checkpoint(self.whole), checkpoint(self.folder / str(ranks))))

    def test_a_run_is_repeatable(self):
        outputs = [run_example(3, *QUICK, "--out", self.folder / name) for name in ("a", "b")]
        self.assertEqual(results(outputs[0]), results(outputs[1]))
        self.assertEqual(*(checkpoints.state_in(checkpoint(self.folder / name, 20)) for name in ("a", "b")))

    def test_ranks_without_members_take_part(self):
        output = run_example(3, *QUICK, "--members", 1, "--test-members", 1, "--out", self.folder)
        self.assertIn(": 40 steps of training, loss", output)
        self.assertEqual(len(results(output)), 4)

    def test_a_resumed_run_ends_with_the_bits_of_one_that_was_never_stopped(self):
        output = run_example(2, *SMALL, "--out", self.folder, "--stop-after", 90)
        self.assertIn("stopped after time step 90: go on with --resume", output)
        self.assertEqual(results(output), [])
        output = run_example(2, *SMALL, "--out", self.folder, "--resume")
        self.assertIn("resumed after time step 90", output)
        self.assertEqual(results(output), results(self.whole_output))
        self.assertEqual(*(checkpoints.state_in(checkpoint(folder)) for folder in (self.whole, self.folder)))

    def test_goes_on_on_another_number_of_ranks(self):
        run_example(4, *SMALL, "--out", self.folder, "--stop-after", 80)  # one rank has no member
        output = run_example(3, *SMALL, "--out", self.folder, "--resume")
        self.assert_learned(output)
        differing = differing_items(checkpoint(self.whole), checkpoint(self.folder))
        self.assertNotIn("simulation", differing)
        self.assertIn("model", differing)

    def test_trains_within_a_budget_of_seconds(self):
        output = run_example(2, "--members", 2, "--steps", 3, "--test-steps", 0, "--budget", 0.02, "--out", self.folder)
        self.assertGreater(int(re.search(r"time step 3: (\d+) steps of training", output)[1]), 0)

    def test_the_picture_is_well_formed(self):
        name = "{http://www.w3.org/2000/svg}"
        root = xml.etree.ElementTree.parse(self.whole / "burgers_closure.svg").getroot()
        self.assertEqual(root.tag, name + "svg")
        texts = [text.text for text in root.iter(name + "text")]
        for text in "fine, filtered", "learned", "time", "error, %", "wave number", "mean energy":
            self.assertIn(text, texts)
        frames = root.findall(name + "svg")
        self.assertEqual([len(frame.findall(name + "path")) for frame in frames], [5, 4, 5])

    def test_a_run_that_becomes_unstable_still_has_a_picture(self):
        run_example(1, *QUICK, "--test-steps", 40, "--smagorinsky", 20, "--out", self.folder)
        name = "{http://www.w3.org/2000/svg}"
        root = xml.etree.ElementTree.parse(self.folder / "burgers_closure.svg").getroot()
        curves = [path.get("d").split() for path in root.find(name + "svg").findall(name + "path")]
        self.assertEqual([len(curve) > 0 for curve in curves], [True, True, False, True, True])

    def test_bad_input_is_one_clear_line(self):
        none = self.folder / "none"

        def fails(expected, status, *arguments):
            output = run_example(2, *arguments, "--out", none, status=status)
            self.assertEqual(output.strip(), expected)

        fails("error: there is no option --member (try --help)", 2, "--member", 2)
        fails("error: --members: expected an integer of 1 to 1000000, found '1.5' (try --help)", 2, "--members", 1.5)
        fails("error: --steps: expected an integer of 1 to 1000000, found '99999999999' (try --help)", 2,
              "--steps", 99999999999)
        fails("error: --lr: expected a number of 0 to 1000000, found '-1' (try --help)", 2, "--lr", -1)
        fails("error: --budget excludes --train-steps (try --help)", 2, "--budget", 1, "--train-steps", 1)
        fails(f"error: --resume: there is no '{none}/checkpoints'", 1, "--resume")
        self.assertFalse(none.exists())
        output = run_example(2, "--seed", status=2)
        self.assertEqual(output.strip(), "error: --seed: expected an integer of 0 to 1000000, found '' (try --help)")
        output = run_example(2, *SMALL, "--out", self.whole, status=1)
        self.assertEqual(output.strip(), f"error: '{self.whole}/checkpoints' has checkpoints: pass --resume to go on "
                                         "with them, or another --out")
        output = run_example(2, *SMALL, "--out", self.whole, "--resume", "--stop-after", 5, status=1)
        self.assertEqual(output.strip(), f"error: {self.whole}/checkpoints: {STEPS} time steps are done: "
                                         "expected at most 5")
        output = run_example(2, *SMALL, "--members", 4, "--out", self.whole, "--resume", status=1)
        self.assertIn("'u': expected shape (4, 1024), found (3, 1024)", output)

    def test_help_names_each_option(self):
        output = run_example(2, "--help")
        source = (pathlib.Path(__file__).parents[2] / "examples/burgers_closure/options.f90").read_text()
        for name in re.findall(r"case \('(--[a-z-]+)'\)", source):
            self.assertEqual(output.count(f"  {name} "), 1, name)


report.main()
