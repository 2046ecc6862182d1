"""The safetensors format in Python, without a package of its own: what this example needs of it."""

import json
import math
import struct

import torch

DTYPES = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64, "U8": torch.uint8,
          "BOOL": torch.bool}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write(path, tensors, metadata):
    header, data = {"__metadata__": metadata}, bytearray()
    for name, tensor in tensors.items():
        numbers = tensor.detach().contiguous()
        begin = len(data)
        data += numbers.numpy().tobytes()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def without_duplicates(pairs):
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name comes twice")
    return result


def read(path):
    """The tensors by name, and the metadata."""
    with open(path, "rb") as file:
        contents = file.read()
    length, = struct.unpack_from("<Q", contents)
    header = json.loads(contents[8:8 + length].decode(), object_pairs_hook=without_duplicates)
    data = bytearray(contents[8 + length:])
    metadata = header.pop("__metadata__", {})
    tensors, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape, (begin, next_begin) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        count = math.prod(shape)
        size = count * torch.empty(0, dtype=dtype).element_size()
        if begin != end or next_begin != begin + size or next_begin > len(data):
            raise ValueError(f"{name}: expected {size} bytes from {end} on, found {begin} to {next_begin}")
        flat = torch.frombuffer(data, dtype=dtype, count=count, offset=begin) if count else torch.empty(0, dtype=dtype)
        tensors[name] = flat.reshape(shape).clone()
        end = next_begin
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes belong to no tensor")
    return tensors, metadata
