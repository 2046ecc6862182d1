"""Writes batch_norm.json: what torch.nn.BatchNorm1d and 2d compute over several batches, for
tests/nn/batch_norm_test.cpp.

Run by hand, with PyTorch 1.13 or later: python3 tests/golden/batch_norm.py
"""

import json
import pathlib

import torch

from layers import DTYPES, flat, inputs

BATCHES = 3


def case(kind, shape, **options):
    """Of each batch the result, the running statistics after it, and the gradients of
    sum(result · cotangent); the last batch is one of evaluation."""
    channels = shape[1]
    start = {"weight": inputs(channels), "bias": inputs(channels)}
    batches = [{"x": inputs(*shape), "cotangent": inputs(*shape)} for _ in range(BATCHES)]
    found = {}
    for name, dtype in DTYPES.items():
        layer = kind(channels, dtype=dtype, **options)
        if layer.affine:
            layer.load_state_dict(start, strict=False)
        found[name] = []
        for i, batch in enumerate(batches):
            layer.train(i + 1 < BATCHES)
            layer.zero_grad()
            x = batch["x"].to(dtype).requires_grad_()
            result = layer(x)
            (result * batch["cotangent"].to(dtype)).sum().backward()
            found[name].append({
                "value": flat(result),
                "gradients": [flat(leaf.grad) for leaf in (x, *layer.parameters())],
                "buffers": {key: flat(buffer) for key, buffer in layer.named_buffers()}})
    return {
        "shape": shape,
        **{key: flat(tensor) for key, tensor in start.items()},
        "batches": [{key: flat(tensor) for key, tensor in batch.items()} for batch in batches],
        **found,
    }


def main():
    torch.manual_seed(0)
    one, two = torch.nn.BatchNorm1d, torch.nn.BatchNorm2d
    cases = {
        "vectors": case(one, [5, 3]),
        "sequences": case(one, [2, 2, 3], eps=0.25, momentum=0.75),
        "images": case(two, [3, 2, 2, 3]),
        "cumulative": case(two, [2, 2, 1, 3], momentum=None),
        "not affine": case(one, [4, 2], affine=False),
        "not tracked": case(two, [2, 2, 2, 2], track_running_stats=False),
    }
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in cases.items()]
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
