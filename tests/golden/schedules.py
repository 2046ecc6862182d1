#!/usr/bin/env python3
"""Writes schedules.json: learning rates, and momenta, of two groups under torch.optim.lr_scheduler
before and after each of 30 steps. What torch does not have is computed by numpy."""

import json
import math
import pathlib
import warnings

import numpy as np
import torch
from torch.optim import lr_scheduler as torch_schedules

BASES = [0.1, 0.03]
STEPS = 30
METRICS = [
    1.0, 0.9, 0.91, 0.9, 0.8999, 0.9001, 0.7, 0.71, 0.72, math.nan, 0.7, 0.6999999, 0.5, 0.5, 0.51,
    0.6, 0.5, 0.52, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.39999, 0.4, 0.4, 0.4, 0.3, 0.35,
]

# Our name of a schedule and of its options, and what torch calls them.
TORCH = {
    "constant": ("ConstantLR", {"steps": "total_iters"}),
    "step": ("StepLR", {}),
    "multi_step": ("MultiStepLR", {}),
    "exponential": ("ExponentialLR", {}),
    "linear": ("LinearLR", {"start": "start_factor", "end": "end_factor", "steps": "total_iters"}),
    "cosine": ("CosineAnnealingLR", {"steps": "T_max", "minimum": "eta_min"}),
    "cosine_restarts": (
        "CosineAnnealingWarmRestarts",
        {"steps": "T_0", "multiplier": "T_mult", "minimum": "eta_min"},
    ),
    "polynomial": ("PolynomialLR", {"steps": "total_iters"}),
    "one_cycle": (
        "OneCycleLR",
        {
            "steps": "total_steps",
            "maximum": "max_lr",
            "rising": "pct_start",
            "anneal": "anneal_strategy",
        },
    ),
    "on_plateau": ("ReduceLROnPlateau", {"minimum": "min_lr"}),
}
VALUES = {"cosine": "cos", "relative": "rel", "absolute": "abs"}

CASES = [
    ("constant", {}),
    ("constant", {"factor": 0.5, "steps": 12}),
    ("step", {"step_size": 7}),
    ("step", {"step_size": 1, "gamma": 0.9}),
    ("multi_step", {"milestones": [3, 11, 12, 29]}),
    ("multi_step", {"milestones": [0, 8, 8, 20], "gamma": 0.7}),
    ("exponential", {"gamma": 0.95}),
    ("exponential", {"gamma": 1.1}),
    ("linear", {}),
    ("linear", {"start": 1.0, "end": 0.2, "steps": 25}),
    ("linear", {"start": 0.01, "end": 0.9, "steps": 10}),
    ("cosine", {"steps": 30}),
    ("cosine", {"steps": 12, "minimum": 0.002}),
    ("cosine", {"steps": 7, "minimum": 0.05}),
    ("cosine_restarts", {"steps": 10}),
    ("cosine_restarts", {"steps": 4, "multiplier": 2, "minimum": 0.001}),
    ("cosine_restarts", {"steps": 1, "multiplier": 3, "minimum": 0.01}),
    ("polynomial", {}),
    ("polynomial", {"steps": 20, "power": 2.0}),
    ("polynomial", {"steps": 40, "power": 0.5}),
    ("one_cycle", {"maximum": 0.5, "steps": 31}),
    ("one_cycle", {"maximum": 0.5, "steps": 40, "rising": 0.45, "anneal": "linear"}),
    (
        "one_cycle",
        {
            "maximum": 1.5,
            "steps": 31,
            "rising": 0.4,
            "div_factor": 10.0,
            "final_div_factor": 50.0,
            "three_phase": True,
        },
    ),
    (
        "one_cycle",
        {"maximum": 0.2, "steps": 35, "rising": 0.25, "anneal": "linear", "three_phase": True},
    ),
    ("one_cycle", {"maximum": 0.2, "steps": 31, "rising": 0.0}),
    ("one_cycle_momentum", {"steps": 31}),
    (
        "one_cycle_momentum",
        {"minimum": 0.6, "maximum": 0.9, "steps": 31, "rising": 0.4, "three_phase": True},
    ),
    ("one_cycle_momentum", {"steps": 33, "rising": 0.6, "anneal": "linear"}),
    ("on_plateau", {"patience": 1}),
    ("on_plateau", {"patience": 0, "factor": 0.5, "cooldown": 2, "minimum": 0.01}),
    ("on_plateau", {"patience": 0, "factor": 0.5, "minimum": 0.005, "eps": 0.004}),
    ("on_plateau", {"patience": 2, "factor": 0.3, "threshold": 0.15}),
    (
        "on_plateau",
        {"patience": 1, "factor": 0.5, "threshold": 0.05, "threshold_mode": "absolute"},
    ),
    ("on_plateau", {"patience": 3, "factor": 0.9, "mode": "max"}),
    (
        "on_plateau",
        {
            "patience": 2,
            "factor": 0.8,
            "mode": "max",
            "threshold": 0.01,
            "threshold_mode": "absolute",
            "cooldown": 1,
        },
    ),
    (
        "sequential",
        {"phases": [["constant", {"factor": 0.1, "steps": 9}, 6], ["exponential", {"gamma": 0.9}]]},
    ),
    (
        "sequential",
        {
            "phases": [
                ["linear", {"start": 0.2, "steps": 5}, 5],
                ["cosine", {"steps": 10, "minimum": 0.004}, 18],
                ["polynomial", {"steps": 12}],
            ]
        },
    ),
    (
        "chained",
        {"parts": [["constant", {"factor": 0.1, "steps": 4}], ["exponential", {"gamma": 0.9}]]},
    ),
    (
        "chained",
        {
            "parts": [
                ["linear", {"start": 0.2, "steps": 6}],
                ["cosine", {"steps": 40}],
                ["step", {"step_size": 9, "gamma": 0.5}],
            ]
        },
    ),
    (
        "chained",
        {
            "parts": [
                ["exponential", {"gamma": 0.97}],
                ["on_plateau", {"patience": 1, "factor": 0.5, "eps": 0.0}],
            ]
        },
    ),
    ("warm_up", {"steps": 8, "start": 0.25, "next": ["cosine", {"steps": 22, "minimum": 0.001}]}),
    ("warm_up", {"steps": 5, "start": 0.1, "next": ["exponential", {"gamma": 0.9}]}),
    ("function", {"power": 1.5}),
    ("inverse_sqrt", {"warm_up": 8}),
    ("inverse_sqrt", {"warm_up": 1}),
    ("warm_up", {"steps": 8, "next": ["polynomial", {"steps": 16}]}),
]


def make(optimizer, name, options):
    """A torch scheduler; for a chain, the list of them."""
    if name == "chained":
        return [make(optimizer, *part) for part in options["parts"]]
    if name == "function":
        return torch_schedules.LambdaLR(optimizer, lambda t: (1 + t) ** -options["power"])
    if name == "sequential":
        parts = [make(optimizer, *phase[:2]) for phase in options["phases"]]
        return torch_schedules.SequentialLR(
            optimizer, parts, milestones=[phase[2] for phase in options["phases"][:-1]]
        )
    if name == "warm_up":
        first = ["linear", {"start": options["start"], "steps": options["steps"]}, options["steps"]]
        return make(optimizer, "sequential", {"phases": [first, options["next"]]})
    options = {key: VALUES.get(value, value) if isinstance(value, str) else value
               for key, value in options.items()}
    if name == "one_cycle_momentum":
        low_and_high = {"base_momentum": options.pop("minimum", 0.85),
                        "max_momentum": options.pop("maximum", 0.95)}
        name, options = "one_cycle", {"maximum": 1.0, **low_and_high, **options}
    torch_name, names = TORCH[name]
    options = {names.get(key, key): value for key, value in options.items()}
    return getattr(torch_schedules, torch_name)(optimizer, **options)


def by_torch(name, options):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in BASES]
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.9)
    field = "momentum" if name == "one_cycle_momentum" else "lr"
    schedulers = make(optimizer, name, options)
    rows = [[group[field] for group in optimizer.param_groups]]
    for metric in METRICS:
        optimizer.step()
        for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
            if isinstance(scheduler, torch_schedules.ReduceLROnPlateau):
                scheduler.step(metric)
            else:
                scheduler.step()
        rows.append([group[field] for group in optimizer.param_groups])
    return rows


def by_numpy(name, options):
    t = np.arange(STEPS + 1.0)
    if name == "inverse_sqrt":
        warm_up = options["warm_up"]
        factors = np.where(t < warm_up, (t + 1) / warm_up, np.sqrt(warm_up / (t + 1)))
    else:  # from 0, then polynomial
        steps, following = options["steps"], options["next"][1]["steps"]
        factors = np.where(t < steps, t / steps, 1 - np.minimum((t - steps) / following, 1))
    return np.outer(factors, BASES).tolist()


def values(name, options):
    of_numpy = name == "inverse_sqrt" or (name == "warm_up" and "start" not in options)
    rows = by_numpy(name, options) if of_numpy else by_torch(name, options)
    return [[float(row[i]) for row in rows] for i in range(len(BASES))]


def main():
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message="The epoch parameter")  # torch's own, in SequentialLR
    assert len(METRICS) == STEPS
    lines = [
        json.dumps({"schedule": name, "options": options, "values": values(name, options)})
        for name, options in CASES
    ]
    metrics = [None if math.isnan(metric) else metric for metric in METRICS]
    text = '{"bases": %s,\n"metrics": %s,\n"cases": [\n%s]}\n' % (
        json.dumps(BASES), json.dumps(metrics), ",\n".join(lines))
    pathlib.Path(__file__).with_suffix(".json").write_text(text)


main()
