"""Reads the example of docs/checkpoint_format.md by that document alone."""

import math
import pathlib
import re
import struct
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "testing"))
import report

EXAMPLE = (ROOT / "tests" / "golden" / "checkpoint_v1.lockstep").read_bytes()
DOCUMENT = (ROOT / "docs" / "checkpoint_format.md").read_text()


class Header:
    def __init__(self, text):
        self.text = text
        self.position = 0

    def number(self):
        token = re.compile(rb"\s*(\d+)").match(self.text, self.position)
        self.position = token.end()
        return int(token[1])

    def string(self):
        size = self.number()
        self.position += 1 + size
        return self.text[self.position - size:self.position].decode()

    def list(self, item):
        return [item() for _ in range(self.number())]

    def record(self):
        return self.string(), self.number(), self.number(), self.string()

    def tensor(self):
        return (self.number(), self.list(self.number), self.number(), self.number(), self.number())


def signed(number):
    return number - 2**64 if number >= 2**63 else number


def elements(tensor, data):
    dtype, shape, offset, size, _ = tensor
    values = struct.unpack_from(f"<{math.prod(shape)}{'fdqB'[dtype]}", data, offset)
    assert struct.calcsize(f"<{math.prod(shape)}{'fdqB'[dtype]}") == size
    return shape, list(values)


def take_entry(records, tensors):
    """Takes a value and all below it off the records, and returns it with its key."""
    key, kind, number, text = records.pop(0)
    if kind == 5:
        return key, dict(take_entry(records, tensors) for _ in range(number))
    if kind == 6:
        return key, [take_entry(records, tensors)[1] for _ in range(number)]
    return key, [lambda: bool(number), lambda: signed(number),
                 lambda: struct.unpack("<d", struct.pack("<Q", number))[0],
                 lambda: text, lambda: tensors[number]][kind]()


class Format(unittest.TestCase):
    def test_the_dump_in_the_document_is_the_example(self):
        bytes_, skipping = bytearray(), False
        for line in re.search(r"```\n(0{8} .*?)```", DOCUMENT, re.DOTALL)[1].splitlines():
            if line == "*":
                skipping = True
                continue
            offset, *digits = line.split("|")[0].split()
            while skipping and len(bytes_) < int(offset, 16):
                bytes_ += bytes_[-16:]
            skipping = False
            self.assertEqual(len(bytes_), int(offset, 16))
            bytes_ += bytes.fromhex("".join(digits))
        self.assertEqual(bytes(bytes_), EXAMPLE)

    def test_the_example_is_what_the_document_says(self):
        magic, version, reserved, length, _ = struct.unpack_from("<8sIIQQ", EXAMPLE)
        self.assertEqual((magic, version, reserved), (b"LOCKSTEP", 1, 0))
        self.assertEqual(struct.unpack("<Q8s", EXAMPLE[-16:]), (len(EXAMPLE), b"PETSKCOL"))
        header = Header(EXAMPLE[32:32 + length])
        records, tensors = header.list(header.record), header.list(header.tensor)
        self.assertEqual(header.text[header.position:], b"\n")

        begin = -(-(32 + length) // 64) * 64
        end = 0
        for _, _, offset, size, _ in tensors:
            self.assertEqual(offset, -(-end // 64) * 64)
            self.assertEqual(EXAMPLE[begin + end:begin + offset].strip(b"\0"), b"")
            end = offset + size
        self.assertEqual(begin + end + 16, len(EXAMPLE))

        data = EXAMPLE[begin:-16]
        _, state = take_entry(records, [elements(tensor, data) for tensor in tensors])
        self.assertEqual(records, [])
        self.assertEqual(math.copysign(1, state["model"]["scale"][1][0]), -1)
        self.assertEqual(state, {
            "model": {"labels": ([1], [-2]), "mask": ([2, 1], [7, 255]), "scale": ([], [0.0]),
                      "weight": ([3], [1.0, -2.0, math.inf])},
            "progress": {"done": False, "loss": 0.5, "note": "two\nlines",
                         "steps": [-1, 2**63 - 1]}})


report.main()
