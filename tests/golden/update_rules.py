#!/usr/bin/env python3
"""Writes update_rules.json: 20 steps of torch.optim from given gradients, some of them absent."""

import json
import pathlib

import numpy as np
import torch

from philox import uniform

SHAPES = [(3, 5), (7,), (33,), (1,)]
CASES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    ("SGD", {"lr": 0.1, "momentum": 0.8, "dampening": 0.1, "weight_decay": 0.02}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.05, "momentum": 0.7, "nesterov": True, "weight_decay": 0.03}),
    ("Adam", {}),
    ("Adam", {"lr": 0.01, "beta1": 0.8, "beta2": 0.99}),
    ("Adam", {"lr": 0.01, "eps": 0.1}),
    ("Adam", {"lr": 0.01, "weight_decay": 0.05}),
    ("Adam", {"lr": 0.01, "beta1": 0.0, "beta2": 0.0}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.02, "weight_decay": 0.3}),
    ("AdamW", {"lr": 0.02, "beta1": 0.7, "beta2": 0.9, "eps": 0.01, "weight_decay": 0.1}),
]


def torch_options(options):
    options = dict(options)
    betas = options.pop("beta1", 0.9), options.pop("beta2", 0.999)
    return options if betas == (0.9, 0.999) else {**options, "betas": betas}


def run(rule, options, dtype):
    parameters = [
        torch.nn.Parameter(torch.from_numpy(uniform(10**6 + i, shape, -1.0, 1.0, dtype)))
        for i, shape in enumerate(SHAPES)
    ]
    optimizer = getattr(torch.optim, rule)(parameters, **torch_options(options))
    for step in range(20):
        for i, parameter in enumerate(parameters):
            absent = (3 * step + i) % 7 == 2
            gradient = uniform(100 * step + i, SHAPES[i], -1.0, 1.0, dtype)
            parameter.grad = None if absent else torch.from_numpy(gradient)
        optimizer.step()
    digits = 9 if dtype == np.float32 else 17
    tensors = []
    for parameter in parameters:
        state = {"value": parameter.detach(), **optimizer.state[parameter]}
        tensors.append(
            {
                name: [float(f"{x:.{digits}g}") for x in np.atleast_1d(value).reshape(-1)]
                for name, value in state.items()
                if value is not None
            }
        )
    return tensors


def main():
    results = [
        {"rule": rule, "options": options, "dtype": name, "tensors": run(rule, options, dtype)}
        for rule, options in CASES
        for name, dtype in (("f32", np.float32), ("f64", np.float64))
    ]
    text = json.dumps(results, separators=(",", ":")).replace("],", "],\n")
    pathlib.Path(__file__).with_suffix(".json").write_text(text + "\n")


main()
