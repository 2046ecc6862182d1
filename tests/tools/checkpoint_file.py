"""Writes checkpoints by docs/checkpoint_format.md alone."""

import ctypes
import ctypes.util
import dataclasses
import math
import struct

DTYPES = {"f32": "f", "f64": "d", "i64": "q", "u8": "B"}
xxh3 = ctypes.CDLL(ctypes.util.find_library("xxhash")).XXH3_64bits
xxh3.restype, xxh3.argtypes = ctypes.c_uint64, [ctypes.c_char_p, ctypes.c_size_t]


def checksum(data):
    return xxh3(data, len(data))


@dataclasses.dataclass
class Tensor:
    dtype: str
    shape: list
    data: bytes

    def __init__(self, dtype, shape, numbers):
        """`numbers` may be the bytes themselves."""
        self.dtype, self.shape = dtype, shape
        self.data = numbers if isinstance(numbers, bytes) else \
            struct.pack(f"<{math.prod(shape)}{DTYPES[dtype]}", *numbers)


class Double(float):
    """A double with its bits, which a float of Python need not keep."""

    def __new__(cls, bits):
        self = super().__new__(cls, struct.unpack("<d", struct.pack("<Q", bits))[0])
        self.bits = bits
        return self


def text(string):
    data = string if isinstance(string, bytes) else string.encode()
    return b"%d %s" % (len(data), data)


def padding(size):
    return bytes(-size % 64)


class Writer:
    def __init__(self):
        self.records, self.tensors, self.data = [], [], b""

    def add(self, key, value):
        def record(kind, number, string=""):
            self.records.append(b"%s %d %d %s" % (text(key), kind, number, text(string)))
        if isinstance(value, bool):
            record(0, value)
        elif isinstance(value, int):
            record(1, value % 2**64)
        elif isinstance(value, float):
            record(2, getattr(value, "bits", struct.unpack("<Q", struct.pack("<d", value))[0]))
        elif isinstance(value, (str, bytes)):
            record(3, 0, value)
        elif isinstance(value, Tensor):
            record(4, len(self.tensors))
            self.data += padding(len(self.data))
            self.tensors.append(b" ".join(b"%d" % number for number in (
                list(DTYPES).index(value.dtype), len(value.shape), *value.shape, len(self.data), len(value.data),
                checksum(value.data))))
            self.data += value.data
        elif isinstance(value, dict):
            record(5, len(value))
            for name in sorted(value, key=lambda name: name if isinstance(name, bytes) else name.encode()):
                self.add(name, value[name])
        else:
            record(6, len(value))
            for item in value:
                self.add("", item)

    def file(self):
        header = b" ".join([b"%d" % len(self.records), *self.records, b"%d" % len(self.tensors), *self.tensors]) + b"\n"
        begin = struct.pack("<8sIIQQ", b"LOCKSTEP", 1, 0, len(header), checksum(header)) + header
        if self.tensors:
            begin += padding(len(begin)) + self.data
        return begin + struct.pack("<Q8s", len(begin) + 16, b"PETSKCOL")


def encode(state):
    writer = Writer()
    writer.add("", state)
    return writer.file()
