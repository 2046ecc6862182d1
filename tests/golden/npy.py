#!/usr/bin/env python3
"""Writes npy.json: the bytes of files that numpy.save writes, in hexadecimal, for
tests/checkpoint/npy_test.cpp."""

import io
import json
import pathlib

import numpy as np


def saved(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue().hex()


def main():
    numbers = np.arange(6).reshape(2, 3)
    files = {
        "f4 of two axes": saved((numbers / 8 - 0.1).astype("<f4")),
        "f8 without axes": saved(np.array(0.1)),
        "i8 of one axis": saved(np.array([-2**63, -1, 2**63 - 1])),
        "u1 without elements": saved(np.zeros((0, 5), "u1")),
        "f4 of eight axes": saved(np.ones([1, 2] * 4, "<f4")),
        "version 2.0": saved(np.array([1.5, -2.5], "<f4"), (2, 0)),
        "version 3.0": saved(np.array([1.5, -2.5], "<f4"), (3, 0)),
        "Fortran order": saved(np.asfortranarray(numbers)),
        "big-endian": saved(numbers.astype(">f8")),
        "objects": saved(np.array([None])),
        "half precision": saved(numbers.astype("<f2")),
        "records": saved(np.zeros(2, [("a", "<f4"), ("b", "<f4")])),
        "nine axes": saved(np.ones([1] * 9, "<f4")),
    }
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(files, indent=1) + "\n")


if __name__ == "__main__":
    main()
