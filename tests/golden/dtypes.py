#!/usr/bin/env python3
"""Writes dtypes.safetensors, a tensor of each dtype that is read, for
tests/checkpoint/safetensors_test.cpp: by the description of the format, with the numbers of numpy."""

import json
import pathlib
import struct

import numpy as np

TENSORS = {
    "f64": ("F64", np.array([[0.1, -0.0, 5e-324], [np.inf, -np.inf, 1e300]], "<f8")),
    "i64": ("I64", np.array([-2**63, -1, 0, 2**63 - 1], "<i8")),
    "f32": ("F32", np.array([[0.1], [1e-45], [3.4e38]], "<f4")),
    "i32": ("I32", np.array([-2**31, 2**31 - 1], "<i4")),
    "u32": ("U32", np.array([0, 2**32 - 1], "<u4")),
    "f16": ("F16", np.array([1.5, -65504, 6e-8, np.inf], "<f2")),
    # The upper halves of these numbers.
    "bf16": ("BF16", (np.array([1.5, -3e38, 1e-40], "<f4").view("<u4") >> 16).astype("<u2")),
    "i16": ("I16", np.array([-2**15, 2**15 - 1], "<i2")),
    "u16": ("U16", np.array([0, 2**16 - 1], "<u2")),
    "i8": ("I8", np.array([-128, 127], "i1")),
    "u8": ("U8", np.array([[[0, 255]]], "u1")),
    "bool": ("BOOL", np.array([True, False, True])),
    "a.scalar": ("F64", np.array(2.5, "<f8")),
    "empty": ("F32", np.zeros((3, 0), "<f4")),
    "ünï \"quoted\"\n": ("U8", np.array([7], "u1")),
}


def main():
    header, data = {"__metadata__": {"format": "np", "text": "zwei\nZeilen, ä"}}, b""
    for name, (dtype, numbers) in TENSORS.items():
        begin = len(data)
        data += numbers.tobytes()
        header[name] = {"shape": numbers.shape, "dtype": dtype, "data_offsets": [begin, len(data)]}
    text = json.dumps(header, indent=1).encode() + b"   "
    path = pathlib.Path(__file__).with_suffix(".safetensors")
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


if __name__ == "__main__":
    main()
