"""Runs the Fashion-MNIST example on ten classes of generated images. The last two arguments of a test
are scripts/launch and the program."""

import json
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

import checkpoints

# Each test runs in a folder of its own, where relative paths mean something else.
PROGRAM = str(pathlib.Path(sys.argv.pop()).resolve())
LAUNCH = sys.argv.pop()
SPLITS = {"train": 200, "t10k": 60}


def write_split(folder, split, count, labels=None):
    """Images of which each class has two bright rows of its own, in noise."""
    numbers = random.Random(split)
    pixels, classes = bytearray(), bytearray()
    for i in range(count):
        label = i % 10
        classes.append(label)
        for row in range(28):
            bright = row // 2 == label + 2
            pixels += bytes(numbers.randrange(150, 256) if bright else numbers.randrange(60)
                            for _ in range(28))
    (folder / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, count, 28, 28) + pixels)
    classes = classes[:labels]
    (folder / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, len(classes)) + classes)


def contents(folder):
    """What each file holds, but for the lock, which says who had it last."""
    if not folder.is_dir():
        return None
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def newest_checkpoint(out):
    return max((out / "checkpoints").glob("step-*.lockstep"))


def newest_state(out):
    return checkpoints.state_in(newest_checkpoint(out))


class Example(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.root = pathlib.Path(tempfile.mkdtemp(prefix="lockstep-"))
        cls.addClassCleanup(shutil.rmtree, cls.root)
        cls.data = cls.root / "data"
        cls.data.mkdir()
        for split, count in SPLITS.items():
            write_split(cls.data, split, count)

    def setUp(self):
        self.folder = self.root / self.id().rpartition(".")[2]
        self.folder.mkdir()
        self.out = self.folder / "out"

    def copy_data(self):
        return pathlib.Path(shutil.copytree(self.data, self.folder / "data"))

    def run_on(self, ranks, *options, out=None, data=None, batch=20):
        """On 0 ranks, without mpirun."""
        return subprocess.run(self.command(ranks, *options, out=out, data=data, batch=batch),
                              capture_output=True, text=True, timeout=120, cwd=self.folder)

    def command(self, ranks, *options, out=None, data=None, batch=20):
        launch = [LAUNCH, "-n", str(ranks)] if ranks else []
        options = ["--out", out or self.out, "--data", data or self.data, *options]
        if "--batch" not in options:
            options += ["--batch", batch]
        return [*launch, PROGRAM, *map(str, options)]

    def train(self, ranks, *options, **paths):
        job = self.run_on(ranks, *options, **paths)
        self.assertEqual((job.returncode, job.stderr), (0, ""), job.stdout)
        return job.stdout

    def metrics(self, out=None):
        lines = ((out or self.out) / "metrics.jsonl").read_text().splitlines()
        schema, *records = map(json.loads, lines)
        self.assertEqual(schema, {"schema": "lockstep.metrics", "version": 2})
        return records

    def results(self, out=None):
        """The metrics that are the same however fast the machine is."""
        return [{name: value for name, value in record.items() if name not in ("samples_per_second", "waiting")}
                for record in self.metrics(out)]
