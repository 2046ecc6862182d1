#!/usr/bin/env python3
"""Writes update_rules.json: what the optimizers of PyTorch 1.13 make of trajectory.py, for every
option of every one of them.

NAdam and RAdam cannot maximize there, so they get the opposite gradients. NAdam takes its foreach
form: the other one has the momentum of a step twice in a product that should have it once. Of the
state, what the library has as well is written: not eta and mu of ASGD, which follow from the step,
nor the step of rules without use for it, which is an int here."""

import pathlib

import torch

import trajectory

TORCH_PAIRS = {
    "betas": ("beta1", "beta2"),
    "etas": ("eta_minus", "eta_plus"),
    "step_sizes": ("step_min", "step_max"),
}
PAIR_DEFAULTS = {
    "beta1": 0.9, "beta2": 0.999, "eta_minus": 0.5, "eta_plus": 1.2,
    "step_min": 1e-6, "step_max": 50,
}

CASES = {
    "SGD": [
        ({"lr": 0.1}, {"lr": 0.05, "weight_decay": 0.02}),
        ({"lr": 0.1, "weight_decay": 0.01}, {"lr": 0.2, "momentum": 0.5}),
        ({"lr": 0.1, "momentum": 0.9}, {"lr": 0.05, "momentum": 0.0}),
        ({"lr": 0.1, "momentum": 0.9, "dampening": 0.5}, {"lr": 0.2, "dampening": 0.0}),
        ({"lr": 0.1, "momentum": 0.9, "nesterov": True}, {"lr": 0.05, "nesterov": False}),
        ({"lr": 0.1, "maximize": True}, {"lr": 0.2, "maximize": False}),
        ({"lr": 0.1, "momentum": 0.8, "dampening": 0.1, "weight_decay": 0.02, "maximize": True},
         {"lr": 0.05, "momentum": 0.4}),
        ({"lr": 0.05, "momentum": 0.7, "nesterov": True, "weight_decay": 0.03, "maximize": True},
         {"lr": 0.1, "weight_decay": 0.0}),
    ],
    "Adam": [
        ({}, {"lr": 0.02, "beta1": 0.7}),
        ({"lr": 0.01}, {"lr": 0.02, "weight_decay": 0.1}),
        ({"beta1": 0.5}, {"lr": 0.02, "beta2": 0.9}),
        ({"beta2": 0.99}, {"lr": 0.02, "eps": 0.01}),
        ({"beta1": 0.0, "beta2": 0.0}, {"lr": 0.02, "beta1": 0.9}),
        ({"eps": 0.1}, {"lr": 0.02, "eps": 1e-3}),
        ({"weight_decay": 0.05}, {"lr": 0.02, "weight_decay": 0.0}),
        ({"amsgrad": True, "beta2": 0.5}, {"lr": 0.02, "amsgrad": False}),
        ({"maximize": True}, {"lr": 0.02, "maximize": False}),
        ({"lr": 0.01, "beta1": 0.8, "beta2": 0.9, "eps": 0.01, "weight_decay": 0.05,
          "amsgrad": True, "maximize": True}, {"lr": 0.02, "beta2": 0.6}),
    ],
    "AdamW": [
        ({}, {"lr": 0.02, "beta1": 0.7}),
        ({"lr": 0.01}, {"lr": 0.02, "weight_decay": 0.1}),
        ({"beta1": 0.5}, {"lr": 0.02, "beta2": 0.9}),
        ({"beta2": 0.99}, {"lr": 0.02, "eps": 0.01}),
        ({"eps": 0.1}, {"lr": 0.02, "eps": 1e-3}),
        ({"weight_decay": 0.3}, {"lr": 0.02, "weight_decay": 0.0}),
        ({"amsgrad": True, "beta2": 0.5}, {"lr": 0.02, "amsgrad": False}),
        ({"maximize": True}, {"lr": 0.02, "maximize": False}),
        ({"lr": 0.02, "beta1": 0.7, "beta2": 0.9, "eps": 0.01, "weight_decay": 0.1,
          "amsgrad": True, "maximize": True}, {"lr": 0.01, "beta2": 0.6}),
    ],
    "NAdam": [
        ({}, {"lr": 0.02, "beta1": 0.7}),
        ({"lr": 0.01}, {"lr": 0.02, "weight_decay": 0.1}),
        ({"beta1": 0.5}, {"lr": 0.02, "beta2": 0.9}),
        ({"beta2": 0.99}, {"lr": 0.02, "eps": 0.01}),
        ({"eps": 0.1}, {"lr": 0.02, "momentum_decay": 0.1}),
        ({"weight_decay": 0.05}, {"lr": 0.02, "weight_decay": 0.0}),
        ({"momentum_decay": 0.5}, {"lr": 0.02, "momentum_decay": 0.0}),
        ({"maximize": True}, {"lr": 0.02, "maximize": False}),
        ({"lr": 0.01, "beta1": 0.8, "beta2": 0.9, "eps": 0.01, "weight_decay": 0.05,
          "momentum_decay": 0.2, "maximize": True}, {"lr": 0.02, "beta1": 0.6}),
    ],
    # With these beta2 the rectification sets in at step 6 (0.99 and above), at step 10 (0.7) or
    # never (0.5).
    "RAdam": [
        ({}, {"lr": 0.02, "beta1": 0.7}),
        ({"lr": 0.01}, {"lr": 0.02, "weight_decay": 0.1}),
        ({"beta1": 0.5}, {"lr": 0.02, "beta2": 0.5}),
        ({"beta2": 0.7}, {"lr": 0.02, "eps": 0.01}),
        ({"eps": 0.1}, {"lr": 0.02, "beta2": 0.99}),
        ({"weight_decay": 0.05}, {"lr": 0.02, "weight_decay": 0.0}),
        ({"maximize": True}, {"lr": 0.02, "maximize": False}),
        ({"lr": 0.01, "beta1": 0.8, "beta2": 0.9, "eps": 0.01, "weight_decay": 0.05,
          "maximize": True}, {"lr": 0.02, "beta1": 0.6}),
    ],
    "Adamax": [
        ({}, {"lr": 0.02, "beta1": 0.7}),
        ({"lr": 0.01}, {"lr": 0.02, "weight_decay": 0.1}),
        ({"beta1": 0.5}, {"lr": 0.02, "beta2": 0.8}),
        ({"beta2": 0.9}, {"lr": 0.02, "eps": 0.01}),
        ({"eps": 0.1}, {"lr": 0.02, "beta2": 0.7}),
        ({"weight_decay": 0.05}, {"lr": 0.02, "weight_decay": 0.0}),
        ({"maximize": True}, {"lr": 0.02, "maximize": False}),
        ({"lr": 0.01, "beta1": 0.8, "beta2": 0.9, "eps": 0.01, "weight_decay": 0.05,
          "maximize": True}, {"lr": 0.02, "beta1": 0.6}),
    ],
    # PyTorch looks at initial_accumulator_value of the optimizer, not at that of a group.
    "Adagrad": [
        ({}, {"lr": 0.1, "weight_decay": 0.1}),
        ({"lr": 0.05}, {"lr": 0.1, "lr_decay": 0.1}),
        ({"lr_decay": 0.2}, {"lr": 0.1, "lr_decay": 0.0}),
        ({"weight_decay": 0.05}, {"lr": 0.1, "eps": 1e-3}),
        ({"initial_accumulator_value": 0.3}, {"lr": 0.1, "weight_decay": 0.02}),
        ({"eps": 0.1}, {"lr": 0.1, "eps": 1e-5}),
        ({"maximize": True}, {"lr": 0.1, "maximize": False}),
        ({"lr": 0.05, "lr_decay": 0.1, "weight_decay": 0.05, "initial_accumulator_value": 0.1,
          "eps": 0.01, "maximize": True}, {"lr": 0.1, "lr_decay": 0.02}),
    ],
    "Adadelta": [
        ({}, {"lr": 0.5, "rho": 0.7}),
        ({"lr": 3.0}, {"lr": 0.5, "weight_decay": 0.1}),
        ({"rho": 0.5}, {"lr": 2.0, "eps": 1e-3}),
        ({"eps": 1e-2}, {"lr": 0.5, "eps": 1e-4}),
        ({"weight_decay": 0.05}, {"lr": 2.0, "weight_decay": 0.0}),
        ({"maximize": True}, {"lr": 0.5, "maximize": False}),
        ({"lr": 2.0, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.05, "maximize": True},
         {"lr": 1.0, "rho": 0.6}),
    ],
    "RMSprop": [
        ({}, {"lr": 0.02, "alpha": 0.9}),
        ({"lr": 0.005}, {"lr": 0.02, "weight_decay": 0.1}),
        ({"alpha": 0.8}, {"lr": 0.02, "eps": 0.01}),
        ({"eps": 0.1}, {"lr": 0.02, "momentum": 0.5}),
        ({"weight_decay": 0.05}, {"lr": 0.02, "centered": True}),
        ({"momentum": 0.9}, {"lr": 0.005, "momentum": 0.0}),
        ({"centered": True}, {"lr": 0.02, "centered": False}),
        ({"alpha": 0.95, "centered": True, "momentum": 0.8}, {"lr": 0.005, "momentum": 0.4}),
        ({"maximize": True}, {"lr": 0.02, "maximize": False}),
        ({"lr": 0.005, "alpha": 0.9, "eps": 0.01, "weight_decay": 0.05, "momentum": 0.7,
          "centered": True, "maximize": True}, {"lr": 0.01, "alpha": 0.7}),
    ],
    "Rprop": [
        ({}, {"lr": 0.05, "eta_plus": 1.5}),
        ({"lr": 0.03}, {"lr": 0.1, "eta_minus": 0.3}),
        ({"eta_minus": 0.7}, {"lr": 0.05, "step_max": 0.06}),
        ({"eta_plus": 1.4}, {"lr": 0.05, "step_min": 0.04}),
        ({"step_min": 8e-3}, {"lr": 1e-3, "step_min": 4e-3}),
        ({"step_max": 0.012}, {"lr": 0.05, "step_max": 0.03}),
        ({"maximize": True}, {"lr": 0.05, "maximize": False}),
        ({"lr": 0.03, "eta_minus": 0.6, "eta_plus": 1.3, "step_min": 0.01, "step_max": 0.04,
          "maximize": True}, {"lr": 0.02, "eta_plus": 1.1}),
    ],
    "ASGD": [
        ({}, {"lr": 0.1, "weight_decay": 0.1}),
        ({"lr": 0.05}, {"lr": 0.1, "lambd": 0.1}),
        ({"lambd": 0.2}, {"lr": 0.1, "alpha": 0.5}),
        ({"lambd": 0.5, "alpha": 0.3}, {"lr": 0.1, "alpha": 1.5}),
        ({"t0": 5.0}, {"lr": 0.1, "t0": 0.0}),
        ({"weight_decay": 0.05}, {"lr": 0.1, "t0": 8.0}),
        ({"maximize": True}, {"lr": 0.1, "maximize": False}),
        ({"lr": 0.05, "lambd": 0.1, "alpha": 0.6, "t0": 3.0, "weight_decay": 0.05,
          "maximize": True}, {"lr": 0.1, "t0": 6.5}),
    ],
}


def torch_options(options):
    options = dict(options)
    for pair, names in TORCH_PAIRS.items():
        if any(name in options for name in names):
            options[pair] = tuple(options.pop(name, PAIR_DEFAULTS[name]) for name in names)
    return options


class TorchOptimizer:
    def __init__(self, rule, first, second, values):
        self.parameters = [torch.nn.Parameter(torch.from_numpy(value)) for value in values]
        self.signs = [1] * len(values)
        groups = []
        members = {trajectory.FIRST_GROUP: dict(first), trajectory.SECOND_GROUP: dict(second)}
        for indices, options in members.items():
            if rule in ("NAdam", "RAdam") and options.pop("maximize", False):
                for i in indices:
                    self.signs[i] = -1
            parameters = [self.parameters[i] for i in indices]
            groups.append({"params": parameters, **torch_options(options)})
        defaults = {"foreach": True} if rule == "NAdam" else {}
        if rule == "SGD":
            defaults["lr"] = first["lr"]
        if "initial_accumulator_value" in first:
            defaults["initial_accumulator_value"] = first["initial_accumulator_value"]
        self.optimizer = getattr(torch.optim, rule)(groups, **defaults)

    def step(self, gradients):
        for parameter, sign, gradient in zip(self.parameters, self.signs, gradients):
            parameter.grad = None if gradient is None else torch.from_numpy(sign * gradient)
        self.optimizer.step()

    def values(self):
        return [parameter.detach().numpy() for parameter in self.parameters]

    def state(self):
        return [
            {
                name: value
                for name, value in self.optimizer.state[parameter].items()
                if isinstance(value, torch.Tensor) and name not in ("eta", "mu")
            }
            for parameter in self.parameters
        ]


def main():
    # The numbers of a parameter's state that are not tensors of its shape have this dtype.
    torch.set_default_dtype(torch.float64)
    cases = [(rule, *case) for rule, cases in CASES.items() for case in cases]
    trajectory.write(pathlib.Path(__file__).with_suffix(".json"), cases, TorchOptimizer)


main()
