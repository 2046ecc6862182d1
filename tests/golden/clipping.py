#!/usr/bin/env python3
"""Writes clipping.json: gradients as torch.nn.utils clips them, for tests/optim/clipping_test.cpp."""

import json
import math
import pathlib

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from philox import uniform

SHAPES = [(3, 5), (7,), (33,), (1,)]
DTYPES = {"f32": np.float32, "f64": np.float64}


def parameters(dtype):
    """Gradient i is drawn from RandomKey(500 + i)."""
    result = []
    for i, shape in enumerate(SHAPES):
        gradient = torch.from_numpy(uniform(500 + i, shape, -2.0, 2.0, dtype))
        parameter = torch.nn.Parameter(torch.zeros_like(gradient))
        parameter.grad = gradient
        result.append(parameter)
    return result


def flat(tensor):
    return [float(f"{x:.17g}") for x in tensor.double().reshape(-1).tolist()]


def case(dtype, kind, limit, norm_type):
    found = parameters(DTYPES[dtype])
    norm = None
    if kind == "value":
        clip_grad_value_(found, limit)
    elif kind == "norm":
        for parameter in found:
            clip_grad_norm_([parameter], limit, norm_type)
    else:
        norm = float(clip_grad_norm_(found, limit, norm_type))
    return {
        "dtype": dtype,
        "kind": kind,
        "limit": limit,
        "norm_type": "inf" if math.isinf(norm_type) else norm_type,
        "norm": norm,
        "gradients": [flat(parameter.grad) for parameter in found],
    }


def main():
    cases = []
    for dtype in DTYPES:
        for limit in 0.5, 1.75, 3.0:
            cases.append(case(dtype, "value", limit, 2.0))
        for norm_type in 1.0, 2.0, 3.0, math.inf:
            for limit in 0.3, 1.9, 100.0:
                cases.append(case(dtype, "norm", limit, norm_type))
                cases.append(case(dtype, "global_norm", limit, norm_type))
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


if __name__ == "__main__":
    main()
