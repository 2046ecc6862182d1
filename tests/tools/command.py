"""What the tests of the lockstep command have in common: its first argument is the program."""

import json
import math
import pathlib
import subprocess
import sys
import tempfile
import unittest

from checkpoint_file import Tensor, encode

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "checkpoint_v1.lockstep"
TOOL = str(pathlib.Path(sys.argv.pop(1)).resolve())


def group(name, params, **fields):
    return {"name": name, "params": params, "lr": 0.001, "beta1": 0.9, "amsgrad": False, **fields}


def training_state():
    """As a program with a model, an optimizer and numbers of its own saves it."""
    return {
        "model": {"0.bias": Tensor("f32", [2], [0.1, -0.0]), "0.weight": Tensor("f32", [2, 3], range(6)),
                  "drop": {"calls": 7, "seed": -1}, "mask": Tensor("u8", [0, 4], []),
                  "norm.mean": Tensor("f64", [], [0.3])},
        "optimizer": {"rule": "Adam",
                      "param_groups": [group("first", ["0.weight"]), group("1", ["0.bias"], lr=2.5e-7, beta1=0.5)],
                      "state": {"0.bias": {"exp_avg": Tensor("f32", [2], [1e-8, math.nan]), "step": 12}}},
        "progress": {"best": math.inf, "counts": Tensor("i64", [3], [-2**63, 5, 2**63 - 1]), "done": True,
                     "empty": {}, "loss": 0.1, "note": "two\nlines", "steps": [1, 2.5]},
    }


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="lockstep-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def write(self, name, state):
        path = self.folder / name
        path.write_bytes(state if isinstance(state, bytes) else encode(state))
        return path

    def tool(self, *arguments, status=0, before=(), **options):
        """The finished program, which must have ended with this status, or if it is None with 0 or 1."""
        options = {"capture_output": True, "text": True, "timeout": 60, "cwd": self.folder, **options}
        job = subprocess.run([*before, TOOL, *map(str, arguments)], **options)
        self.assertIn(job.returncode, (0, 1) if status is None else (status,), (arguments, job.stderr))
        return job

    def output(self, *arguments, status=0):
        job = self.tool(*arguments, status=status)
        self.assertEqual(job.stderr, "")
        return job.stdout

    def document(self, *arguments, status=0):
        text = self.output(*arguments, "--json", status=status)
        self.assertEqual(text.count("\n"), 1)

        def no_constant(name):
            raise AssertionError(f"{name} is no JSON")
        return json.loads(text, parse_constant=no_constant)

    def error(self, *arguments, status):
        job = self.tool(*arguments, status=status)
        self.assertEqual(job.stdout, "")
        self.assertRegex(job.stderr, r"\Aerror: [^\n]+\n\Z")
        return job.stderr

    def check_for_people(self, text):
        """That a terminal shows it as it is meant, on lines of 80 columns."""
        self.assertRegex(text, r"\A[ -~\n]*\Z")
        for line in text.splitlines():
            self.assertLessEqual(len(line), 80, line)


def unwrapped(text):
    """What was broken into lines of a hanging indentation, without the breaks."""
    return "".join(line.strip() for line in text.splitlines())


def nasty_state():
    """Names and values that are too long, no text, or something to a terminal."""
    long = "a_name_without_any_place_to_break_it_" * 5
    return {
        long: {long: Tensor("f32", [1, 2, 1, 1, 1, 1, 1, 1], [1, 2]), "words": "word " * 60, "long": "x" * 300,
               "shape": Tensor("u8", [0, 2**31, 10**9, 1, 1, 1, 1, 1], b"")},
        "escapes": {"\x1b[2J\n\r\t": "\x1b]0;title\x07", "größe": "größe", "\x7f\u009b": "\u202e",
                    b"\xff\xfe": b"\x80", "a/b": 1, "a": {"b": 2}},
        "": {"": {}, "param_groups": [group(long, [long, "b" * 90, *[f"layer.{i}.weight" for i in range(40)]],
                                            **{long: 1.0, "\x1b": 2})]},
        "number": 1,
    }
