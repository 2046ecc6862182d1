"""lockstep inspect as its users see it, on checkpoints that checkpoint_file.py writes."""

import json
import math
import os
import pathlib
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "testing"), str(ROOT / "tests" / "tools")]
import report
from checkpoint_file import Tensor, encode
from command import GOLDEN, Case, group, nasty_state, training_state, unwrapped

LAUNCH, EXAMPLE = sys.argv[1:3]
del sys.argv[1:3]
IMAGES = pathlib.Path("/usr/share/datasets/fashion-mnist")

FOR_PEOPLE = """\
run.lockstep
format 1, 1320 bytes: 6 tensors, 14 numbers, 72 B

model: 4 tensors, 9 numbers, 40 B
  0.bias           8 B  f32      (2)
  0.weight        24 B  f32      (2, 3)
  drop/calls            integer  7
  drop/seed             integer  -1
  mask             0 B  u8       (0, 4)
  norm.mean        8 B  f64      ()

optimizer: 1 tensor, 2 numbers, 8 B
  rule                            string   "Adam"
  state/0.bias/exp_avg       8 B  f32      (2)
  state/0.bias/step               integer  12
  param group first
    params   0.weight
    amsgrad  false
    beta1    0.9
    lr       0.001
  param group 1
    params   0.bias
    amsgrad  false
    beta1    0.5
    lr       2.5e-07

progress: 1 tensor, 3 numbers, 24 B
  best               double   Infinity
  counts       24 B  i64      (3)
  done               bool     true
  empty              dict     empty
  loss               double   0.1
  note               string   "two\\nlines"
  steps/0            integer  1
  steps/1            double   2.5
"""


def tensor(path, dtype, shape, size, **more):
    return {"path": path.split(":"), "kind": "tensor", "dtype": dtype, "shape": shape, "bytes": size, **more}


def scalar(path, kind, value):
    return {"path": path.split(":") if isinstance(path, str) else path, "kind": kind, "value": value}


class Inspect(Case):
    def setUp(self):
        super().setUp()
        self.path = self.write("run.lockstep", training_state())

    def test_shows_the_tree_to_people(self):
        self.assertEqual(self.output("inspect", "run.lockstep"), FOR_PEOPLE)

    def test_shows_values_below_each_tensor(self):
        lines = self.output("inspect", "run.lockstep", "--values").splitlines()
        values = {lines[i - 1].split()[0]: line.strip() for i, line in enumerate(lines) if " NaN" in line}
        self.assertEqual(values, {
            "0.bias": "min -0, max 0.1, mean 0.05, 0 NaN, 0 infinite",
            "0.weight": "min 0, max 5, mean 2.5, 0 NaN, 0 infinite",
            "mask": "0 NaN, no other number",
            "norm.mean": "min 0.3, max 0.3, mean 0.3, 0 NaN, 0 infinite",
            "state/0.bias/exp_avg": "min 1e-08, max 1e-08, mean 1e-08, 1 NaN, 0 infinite",
            "counts": f"min {-2**63}, max {2**63 - 1}, mean 0, 0 NaN, 0 infinite"})
        self.assertEqual([line for line in lines if " NaN" not in line], FOR_PEOPLE.splitlines())

    def test_tells_programs_everything_once(self):
        def fields(**changed):
            return {"amsgrad": False, "beta1": 0.9, "lr": 0.001, **changed}
        self.assertEqual(self.document("inspect", self.path), {
            "schema": "lockstep.inspect", "version": 1, "file": str(self.path), "format_version": 1,
            "file_bytes": self.path.stat().st_size, "tensors": 6, "numbers": 14, "tensor_bytes": 72, "metadata": [],
            "items": [
                {"name": "model", "tensors": 4, "numbers": 9, "tensor_bytes": 40, "param_groups": [], "entries": [
                    tensor("model:0.bias", "f32", [2], 8), tensor("model:0.weight", "f32", [2, 3], 24),
                    scalar("model:drop:calls", "integer", 7), scalar("model:drop:seed", "integer", -1),
                    tensor("model:mask", "u8", [0, 4], 0), tensor("model:norm.mean", "f64", [], 8)]},
                {"name": "optimizer", "tensors": 1, "numbers": 2, "tensor_bytes": 8, "entries": [
                    scalar("optimizer:rule", "string", "Adam"),
                    tensor("optimizer:state:0.bias:exp_avg", "f32", [2], 8),
                    scalar("optimizer:state:0.bias:step", "integer", 12)],
                 "param_groups": [
                     {"path": ["optimizer", "param_groups", 0], "name": "first", "params": ["0.weight"],
                      "hyper_parameters": fields()},
                     {"path": ["optimizer", "param_groups", 1], "name": "1", "params": ["0.bias"],
                      "hyper_parameters": fields(lr=2.5e-7, beta1=0.5)}]},
                {"name": "progress", "tensors": 1, "numbers": 3, "tensor_bytes": 24, "param_groups": [], "entries": [
                    scalar("progress:best", "double", "Infinity"), tensor("progress:counts", "i64", [3], 24),
                    scalar("progress:done", "bool", True), {"path": ["progress", "empty"], "kind": "dict", "size": 0},
                    scalar("progress:loss", "double", 0.1), scalar("progress:note", "string", "two\nlines"),
                    scalar(["progress", "steps", 0], "integer", 1), scalar(["progress", "steps", 1], "double", 2.5)]}]})

    def test_tells_programs_the_values_of_tensors(self):
        third = 1 / 3
        state = {"f32": Tensor("f32", [4], [third, math.nan, -2, 1]), "f64": Tensor("f64", [3], [third, -math.nan, 2]),
                 "i64": Tensor("i64", [2], [-2**63, 2**63 - 1]), "inf": Tensor("f32", [3], [math.inf, 1, -math.inf]),
                 "nan": Tensor("f64", [2], [math.nan] * 2), "none": Tensor("f32", [0], []),
                 "u8": Tensor("u8", [3], [255, 0, 0])}
        document = self.document("inspect", self.write("x", {"item": state}), "--values")
        values = {entry["path"][1]: entry["values"] for entry in document["items"][0]["entries"]}
        third_f32 = 11184811 / 2**25
        expected = {"f32": (-2, 1, (third_f32 - 1) / 3, 1, 0), "f64": (third, 2, (third + 2) / 2, 1, 0),
                    "i64": (-2**63, 2**63 - 1, 0, 0, 0), "inf": ("-Infinity", "Infinity", "NaN", 0, 2),
                    "nan": (None, None, None, 2, 0), "none": (None, None, None, 0, 0), "u8": (0, 255, 85, 0, 0)}
        self.assertEqual(values, {name: dict(zip(("min", "max", "mean", "nan", "infinite"), numbers))
                                  for name, numbers in expected.items()})

    def test_reads_the_example_of_the_format(self):
        document = self.document("inspect", GOLDEN, "--values")
        self.assertEqual((document["file_bytes"], document["tensors"], document["tensor_bytes"]), (668, 4, 30))
        weight = document["items"][0]["entries"][3]
        self.assertEqual(weight["path"], ["model", "weight"])
        self.assertEqual(weight["values"], {"min": -2, "max": "Infinity", "mean": "Infinity", "nan": 0, "infinite": 1})

    def test_fits_a_terminal_whatever_is_in_the_file(self):
        path = self.write("nasty", nasty_state())
        text = self.output("inspect", path, "--values")
        self.check_for_people(text)
        for part in ("a_name_without_any_place_to_break_it_" * 5, "x" * 300, "b" * 90, "\\u001b]0;title\\u0007",
                     "gr\\u00f6\\u00dfe", "\\u007f\\u009b"):
            self.assertIn(part, unwrapped(text))
        self.assertIn("(0,2147483648,1000000000,1,1,1,1,1)", "".join(text.split()))
        json.dumps(self.document("inspect", path, "--values"), allow_nan=False)

    def test_breaks_lines_between_words(self):
        names = [f"layer.{i}.weight" for i in range(30)]
        text = self.output("inspect", self.write("x", {"optimizer": {"param_groups": [group("0", names)]}}))
        self.check_for_people(text)
        self.assertIn(", ".join(names), " ".join(text.split()))

    def test_takes_for_a_param_group_only_what_is_one(self):
        whole = group("0", ["a"])
        for broken in ({**whole, "name": 0}, {**whole, "params": [1]}, {**whole, "params": "a"}, {**whole, "lr": "x"},
                       {**whole, "lr": {}}, {"params": ["a"]}, {"name": "0"}, 7):
            document = self.document("inspect", self.write("x", {"o": {"param_groups": [broken]}}))
            self.assertEqual(document["items"][0]["param_groups"], [], broken)
            self.assertNotEqual(document["items"][0]["entries"], [])
        document = self.document("inspect", self.write("x", {"o": {"groups": [whole]}}))
        self.assertEqual(document["items"][0]["param_groups"], [])

    def test_shows_states_without_items(self):
        path = self.write("x", {})
        self.assertEqual(self.output("inspect", path),
                         f"{path}\nformat 1, {path.stat().st_size} bytes: 0 tensors, 0 numbers, 0 B\n")
        entry, = self.document("inspect", self.write("x", {"n": 1}))["items"][0]["entries"]
        self.assertEqual(entry, scalar("n", "integer", 1))

    def test_tells_sizes_with_a_unit(self):
        for size, text in ((1023, "1023 B"), (1024, "1.00 KiB"), (10230, "9.99 KiB"), (10240, "10.0 KiB"),
                           (102400, "100 KiB"), (1023400, "999 KiB"), (1023500, "0.98 MiB"), (3 << 20, "3.00 MiB")):
            lines = self.output("inspect", self.write("x", {"x": Tensor("u8", [size], bytes(size))})).splitlines()
            self.assertEqual(lines[-1], f"  x  {text:>8}  u8       ({size})")

    def test_refuses_what_is_no_checkpoint(self):
        for path, part in ((self.folder / "none", "no such file"), (self.folder, "not a regular file"),
                           (self.write("x", b"x" * 100), "does not begin as a checkpoint")):
            error = self.error("inspect", path, status=1)
            self.assertIn(str(path), error)
            self.assertIn(part, error)
        self.path.write_bytes(encode(training_state())[:-1])
        self.assertIn(str(self.path), self.error("inspect", self.path, status=1))

    def test_refuses_arguments_that_it_does_not_know(self):
        for arguments in [], ["a", "b"], [self.path, "--turbo"], [self.path, "--values=maybe"]:
            self.assertIn("(try --help)", self.error("inspect", *arguments, status=2))

    def test_says_when_it_cannot_write(self):
        with open("/dev/full", "w") as full:
            job = self.tool("inspect", self.path, status=1, stdout=full, stderr=subprocess.PIPE, capture_output=False)
        self.assertRegex(job.stderr, r"\Aerror: .*No space left on device\n\Z")

    def test_needs_no_mpirun(self):
        self.assertEqual(self.tool("inspect", "run.lockstep", env={}).stdout, FOR_PEOPLE)

    @unittest.skipUnless(EXAMPLE and IMAGES.is_dir(), "the example or its images are missing")
    def test_shows_a_checkpoint_of_the_example(self):
        for path in IMAGES.glob("t10k-*"):
            for split in "train", "t10k":
                (self.folder / path.name.replace("t10k", split)).symlink_to(path)
        subprocess.run([LAUNCH, "-n", "2", str(pathlib.Path(EXAMPLE).resolve()), "--epochs", "1", "--batch", "500",
                        "--data", self.folder, "--out", self.folder / "run"], check=True, capture_output=True,
                       timeout=200, env={**os.environ})
        path, = (self.folder / "run" / "checkpoints").glob("step-*.lockstep")
        document = self.document("inspect", path)
        items = {item["name"]: item for item in document["items"]}
        shapes = {entry["path"][1]: entry["shape"] for entry in items["model"]["entries"]}
        self.assertEqual(shapes["1.weight"], [512, 784])
        parameters, = (one["params"] for one in items["optimizer"]["param_groups"])
        self.assertEqual(parameters, sorted(shapes))
        self.assertEqual(items["optimizer"]["param_groups"][0]["hyper_parameters"]["lr"], 0.0005)
        self.assertEqual(items["optimizer"]["tensors"], 2 * len(parameters))
        metadata = {entry["path"][1]: entry["value"] for entry in document["metadata"]}
        self.assertEqual(metadata.pop("ranks"), 2)
        self.assertRegex(metadata.pop("time"), r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z")
        self.assertRegex(metadata.pop("lockstep"), r"\A\d+\.\d+\.\d+\Z")
        self.assertEqual(metadata.keys(), {"metric", "step"})
        text = self.output("inspect", path, "--values")
        self.check_for_people(text)
        self.assertRegex(text, r"\n\nmetadata\n(  .*\n)*  ranks +integer +2\n")


report.main()
