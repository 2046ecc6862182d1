#!/usr/bin/env python3
"""Writes torch_adam.safetensors, what PyTorch has exported after 5 steps of examples/interop,
torch_adam_data.safetensors, and torch_adam.json, the losses of 15 steps, for
tests/examples/interop_test.py."""

import json
import pathlib
import subprocess
import sys

GOLDEN = pathlib.Path(__file__).resolve().parent
TRAIN = GOLDEN.parents[1] / "examples" / "interop" / "train.py"


def train(*options):
    command = [sys.executable, TRAIN, "--data", GOLDEN / "torch_adam_data.safetensors", *options]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [float(line) for line in output.split()]


def main():
    train("--steps", "5", "--to", GOLDEN / "torch_adam.safetensors")
    (GOLDEN / "torch_adam.json").write_text(json.dumps(train("--steps", "15")) + "\n")


if __name__ == "__main__":
    main()
