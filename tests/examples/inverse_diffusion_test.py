"""The example of a solver's own adjoint: its gradient is right, it finds the conductivity, and neither
depends on the number of ranks."""

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

PROGRAM = str(pathlib.Path(sys.argv.pop()).resolve())
LAUNCH = sys.argv.pop()
SOURCE = pathlib.Path(__file__).resolve().parents[2] / "examples/inverse_diffusion"


class Example(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lockstep-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def run_example(self, ranks, *arguments, cells=20, status=0):
        result = subprocess.run(
            [LAUNCH, "-n", str(ranks), PROGRAM, "--cells", str(cells), *map(str, arguments)],
            cwd=self.folder, capture_output=True, text=True, timeout=120)
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        return result.stdout + result.stderr

    def records(self, out):
        lines = (self.folder / out / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines[1:]]

    def state(self, out, step):
        return checkpoints.state_in(self.folder / out / f"checkpoints/step-{step:09}.lockstep")

    def assert_same_curve(self, found, expected, tolerance):
        self.assertEqual([record["step"] for record in found], [record["step"] for record in expected])
        for one, other in zip(found, expected):
            for name in "misfit", "roughness", "error":
                self.assertLessEqual(abs(one[name] - other[name]), tolerance * abs(other[name]), (name, one, other))

    def test_the_gradient_is_that_of_central_differences(self):
        # Also where some ranks have more experiments than others, or none.
        for ranks, experiments in (1, 3), (2, 3), (5, 7), (5, 3):
            output = self.run_example(ranks, "--check-gradient", "--experiments", experiments)
            difference = re.fullmatch(
                r"gradient and central differences differ by at most (\S+), in 24 cells", output.strip())
            self.assertLess(float(difference.group(1)), 1e-5, output)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_finds_the_conductivity_on_any_number_of_ranks(self):
        for ranks in 1, 2, 3:
            out = f"on_{ranks}"
            output = self.run_example(ranks, "--steps", 12, "--out", out)
            self.assertIn(f"20x20 cells, 12 experiments over {ranks} rank", output)
            found, first = map(float, re.search(r"error of k +(\S+) %, at first (\S+) %", output).groups())
            self.assertGreater(first, 55)
            self.assertLess(found, 18)
            records = self.records(out)
            self.assertEqual([record["step"] for record in records], list(range(13)))
            self.assertAlmostEqual(100 * records[-1]["error"], found, delta=0.01)
            self.assertGreater(records[0]["misfit"], 100)
            self.assertLess(abs(records[-1]["misfit"] - 1), 0.15)
            self.assert_same_curve(records[:1], self.records("on_1")[:1], 1e-12)
            # Each iteration makes more of what rounding did in the ones before.
            self.assert_same_curve(records, self.records("on_1"), 1e-5)

    def test_ranks_without_experiments_take_part(self):
        for ranks in 1, 4:
            self.run_example(ranks, "--experiments", 2, "--steps", 4, "--out", ranks)
        self.assert_same_curve(self.records("4"), self.records("1"), 1e-8)

    def test_a_resumed_run_ends_with_the_bits_of_one_that_was_never_stopped(self):
        for optimizer in "lbfgs", "adam":
            run = ["--optimizer", optimizer, "--experiments", 4]
            whole, parts = f"{optimizer}_whole", f"{optimizer}_parts"
            self.run_example(2, *run, "--steps", 6, "--out", whole)
            self.run_example(2, *run, "--steps", 3, "--out", parts)
            self.run_example(2, *run, "--steps", 6, "--out", parts, "--resume")
            self.assertEqual(self.state(whole, 6), self.state(parts, 6))
            self.assertEqual(self.records(whole), self.records(parts))

    def test_goes_on_on_another_number_of_ranks(self):
        self.run_example(2, "--steps", 8, "--out", "whole")
        self.run_example(2, "--steps", 4, "--out", "parts")
        output = self.run_example(3, "--steps", 8, "--out", "parts", "--resume")
        self.assertIn("over 3 ranks, lbfgs, seed 1, resumed after step 4\n", output)
        self.assert_same_curve(self.records("parts"), self.records("whole"), 1e-6)

    def test_the_picture_has_the_fields_and_the_curves(self):
        self.run_example(2, "--steps", 1, "--experiments", 3)
        picture = xml.etree.ElementTree.parse(self.folder / "run/inverse_diffusion/picture.svg").getroot()
        self.assertEqual(picture.tag, "{http://www.w3.org/2000/svg}svg")
        texts = " ".join(picture.itertext())
        for text in "true, 3 sources, 121 sensors", "found, error", "found − true", "misfit", "gradients computed":
            self.assertIn(text, texts)
        maps = [group for group in picture.iter("{http://www.w3.org/2000/svg}g") if "scale" in group.get("transform", "")]
        self.assertEqual(len(maps), 3)
        for cells in maps:  # each of 20x20 has one colour
            lengths = [int(length) for path in cells for length in re.findall(r"h(\d+)", path.get("d"))]
            self.assertEqual(sum(lengths), 400)

    def test_bad_input_is_one_clear_line(self):
        for option, value, status, message in (
                ("--noise", "nan", 2, "--noise: expected 1e-06 to 1, found nan (try --help)"),
                ("--steps", 0, 2, "--steps: Value 0 not in range 1 to 1000000000 (try --help)"),
                ("--seed", -1, 2, "--seed: -1 is negative (try --help)"),
                ("--lr", -1, 1, "LBFGS: expected lr >= 0, found -1"),
                ("--out", "none", 1, "--resume: there is no 'none/checkpoints' (rank 0)")):
            resume = ["--resume"] if option == "--out" else []
            output = self.run_example(2, option, value, *resume, status=status)
            self.assertEqual(output, f"error: {message}\n")
        self.assertEqual(self.run_example(2, cells=3, status=2),
                         "error: --cells: Value 3 not in range 12 to 1000 (try --help)\n")
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_solver_that_fails_on_one_rank_ends_all(self):
        # The ranks without experiments solve nothing.
        output = self.run_example(3, "--optimizer", "adam", "--lr", 1e6, "--experiments", 1, status=1)
        self.assertEqual(output.splitlines()[-1], "error after 1 step: conjugate gradients do not converge: the conductivity is "
                         "too uneven, or not finite (rank 2)")

    def test_another_problem_does_not_go_on_with_a_run(self):
        self.run_example(2, "--experiments", 2, "--steps", 1, "--out", "run")
        files = {path: path.read_bytes() for path in self.folder.rglob("[!.]*") if path.is_file()}
        self.assertEqual(len(files), 3)
        for cells, experiments, options, message in (
                (20, 2, [], "exists: pass --resume"),
                (20, 3, ["--resume"], "the run in 'run' has --cells 20 --experiments 2 "),
                (20, 2, ["--resume", "--optimizer", "adam"], "LBFGS, this optimizer is Adam"),
                (21, 2, ["--resume"], "(21, 21), found (20, 20)")):
            output = self.run_example(2, "--experiments", experiments, *options, "--out", "run", cells=cells, status=1)
            self.assertIn(message, output)
        for path, contents in files.items():
            self.assertEqual(path.read_bytes(), contents)

    def test_the_manual_quotes_the_program(self):
        program = " ".join((SOURCE / "inversion.cpp").read_text().split())
        quoted = re.findall(r"```cpp\n(.*?)```", (SOURCE / "README.md").read_text(), re.DOTALL)
        self.assertEqual(len(quoted), 1)
        for part in quoted[0].split("…"):
            self.assertIn(" ".join(part.split()), program)


report.main()
