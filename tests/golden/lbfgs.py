#!/usr/bin/env python3
"""Writes lbfgs.json: torch.optim.LBFGS on Rosenbrock's function and on a least-squares problem."""

import json
import pathlib

import numpy as np
import torch

CASES = [
    {},
    {"lr": 0.5, "max_iter": 4},
    {"strong_wolfe": True},
    {"strong_wolfe": True, "history_size": 3, "max_iter": 6},
    {"strong_wolfe": True, "lr": 0.1, "max_iter": 5, "max_eval": 12},
    {"strong_wolfe": True, "tolerance_grad": 0.5},
    {"lr": 0.3, "history_size": 2, "max_iter": 7, "tolerance_change": 1e-3},
]


def rosenbrock(x):
    rest, shifted = x[1:] - x[:-1] ** 2, 1 - x[:-1]
    gradient = np.zeros_like(x)
    gradient[:-1] = -400 * x[:-1] * rest - 2 * shifted
    gradient[1:] += 200 * rest
    return float(np.sum(100 * rest**2 + shifted**2)), gradient


def least_squares(w):
    # (i + 1) · w[i][j] + w[i][j+1]/2 = i - j
    rows, columns = w.shape
    following = np.concatenate([w[:, 1:], np.zeros((rows, 1), w.dtype)], axis=1)
    factor = np.arange(1, rows + 1, dtype=w.dtype)[:, None]
    wanted = np.arange(rows, dtype=w.dtype)[:, None] - np.arange(columns, dtype=w.dtype)[None, :]
    rest = factor * w + following / 2 - wanted
    gradient = 2 * factor * rest
    gradient[:, 1:] += rest[:, :-1]
    return float(np.sum(rest**2)), gradient


def run(options, dtype):
    x = torch.nn.Parameter(torch.from_numpy(np.array([-1.2, 1.0, -0.5, 0.8], dtype)))
    w = torch.nn.Parameter(torch.from_numpy(np.linspace(-1, 1, 6).astype(dtype).reshape(2, 3)))
    arguments = dict(options)
    if arguments.pop("strong_wolfe", False):
        arguments["line_search_fn"] = "strong_wolfe"
    optimizer = torch.optim.LBFGS([x, w], **arguments)

    def closure():
        loss_x, gradient_x = rosenbrock(x.detach().numpy())
        loss_w, gradient_w = least_squares(w.detach().numpy())
        x.grad, w.grad = torch.from_numpy(gradient_x), torch.from_numpy(gradient_w)
        return loss_x + loss_w

    steps = []
    for _ in range(8):
        loss = optimizer.step(closure)
        state = optimizer.state[x]
        steps.append(
            {
                "loss": loss,
                "iterations": state["n_iter"],
                "evaluations": state["func_evals"],
                "x": x.detach().numpy().tolist(),
                "w": w.detach().numpy().reshape(-1).tolist(),
            }
        )
    return steps


def main():
    results = [
        {"options": options, "dtype": name, "steps": run(options, dtype)}
        for options in CASES
        for name, dtype in (("f32", np.float32), ("f64", np.float64))
    ]
    text = json.dumps(results, separators=(",", ":")).replace("},", "},\n")
    pathlib.Path(__file__).with_suffix(".json").write_text(text + "\n")


main()
