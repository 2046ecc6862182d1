#!/usr/bin/env python3
"""Writes large_batch_rules.json: what LAMB, LARS and Lion make of trajectory.py, written after
their papers. All arithmetic is in the dtype of the parameters, except the norms, in double.

    LAMB  You et al., arXiv:1904.00962, algorithm 2, with bias correction and phi(x) = x
    LARS  You, Gitman, Ginsburg, arXiv:1708.03888; its learning rate is no part of the momentum
    Lion  Chen et al., arXiv:2302.06675, algorithm 2
"""

import pathlib

import numpy as np

import trajectory

DEFAULTS = {
    "LAMB": {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "weight_decay": 0.0,
             "adapt": True, "maximize": False},
    "LARS": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0, "trust_coefficient": 1e-3,
             "eps": 1e-8, "nesterov": False, "adapt": True, "maximize": False},
    "Lion": {"lr": 1e-4, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.0, "maximize": False},
}

CASES = {
    "LAMB": [
        ({}, {"lr": 0.02, "beta1": 0.7}),
        ({"lr": 0.01}, {"lr": 0.02, "weight_decay": 0.1}),
        ({"beta1": 0.5}, {"lr": 0.02, "beta2": 0.9}),
        ({"beta2": 0.99}, {"lr": 0.02, "eps": 0.01}),
        ({"eps": 0.1}, {"lr": 0.02, "adapt": False}),
        ({"weight_decay": 0.1}, {"lr": 0.02, "weight_decay": 0.0}),
        ({"adapt": False}, {"lr": 0.02, "adapt": True}),
        ({"maximize": True}, {"lr": 0.02, "maximize": False}),
        ({"lr": 0.01, "beta1": 0.8, "beta2": 0.9, "eps": 0.01, "weight_decay": 0.1,
          "maximize": True}, {"lr": 0.02, "beta1": 0.6}),
    ],
    "LARS": [
        ({}, {"lr": 5.0, "momentum": 0.5}),
        ({"lr": 10.0}, {"lr": 5.0, "weight_decay": 0.1}),
        ({"lr": 5.0, "momentum": 0.0}, {"lr": 10.0, "momentum": 0.9}),
        ({"lr": 5.0, "weight_decay": 0.1}, {"lr": 10.0, "trust_coefficient": 0.01}),
        ({"lr": 0.5, "trust_coefficient": 0.05}, {"lr": 0.2, "eps": 0.3}),
        ({"lr": 10.0, "eps": 0.5}, {"lr": 0.1, "adapt": False}),
        ({"lr": 5.0, "nesterov": True}, {"lr": 10.0, "nesterov": False}),
        ({"lr": 0.05, "adapt": False}, {"lr": 5.0, "adapt": True}),
        ({"lr": 5.0, "maximize": True}, {"lr": 10.0, "maximize": False}),
        ({"lr": 0.5, "momentum": 0.8, "weight_decay": 0.1, "trust_coefficient": 0.02, "eps": 0.01,
          "nesterov": True, "maximize": True}, {"lr": 0.2, "momentum": 0.6}),
    ],
    "Lion": [
        ({}, {"lr": 0.02, "beta1": 0.7}),
        ({"lr": 0.01}, {"lr": 0.02, "weight_decay": 0.1}),
        ({"lr": 0.01, "beta1": 0.5}, {"lr": 0.02, "beta2": 0.8}),
        ({"lr": 0.01, "beta2": 0.9}, {"lr": 0.02, "beta1": 0.6}),
        ({"lr": 0.01, "weight_decay": 0.2}, {"lr": 0.02, "weight_decay": 0.0}),
        ({"lr": 0.01, "maximize": True}, {"lr": 0.02, "maximize": False}),
        ({"lr": 0.01, "beta1": 0.8, "beta2": 0.9, "weight_decay": 0.1, "maximize": True},
         {"lr": 0.02, "beta2": 0.7}),
    ],
}


def norm(x):
    return float(np.sqrt(np.sum(x.astype(np.float64) ** 2)))


def lamb(x, g, state, o):
    t = state["step"] = state.get("step", 0) + 1
    m = o["beta1"] * state.get("exp_avg", 0 * x) + (1 - o["beta1"]) * g
    v = o["beta2"] * state.get("exp_avg_sq", 0 * x) + (1 - o["beta2"]) * g * g
    state["exp_avg"], state["exp_avg_sq"] = m, v
    m_hat, v_hat = m / (1 - o["beta1"] ** t), v / (1 - o["beta2"] ** t)
    r = m_hat / (np.sqrt(v_hat) + o["eps"]) + o["weight_decay"] * x
    trust = norm(x) / norm(r) if o["adapt"] and norm(x) > 0 and norm(r) > 0 else 1.0
    return x - o["lr"] * trust * r


def lars(x, g, state, o):
    local = 1.0
    if o["adapt"] and norm(x) > 0 and norm(g) > 0:
        local = norm(x) / (norm(g) + o["weight_decay"] * norm(x) + o["eps"])
        local *= o["trust_coefficient"]
    d = local * (g + o["weight_decay"] * x)
    if o["momentum"] == 0:
        return x - o["lr"] * d
    v = o["momentum"] * state.get("momentum_buffer", 0 * x) + d
    state["momentum_buffer"] = v
    return x - o["lr"] * (d + o["momentum"] * v if o["nesterov"] else v)


def lion(x, g, state, o):
    m = state.get("exp_avg", 0 * x)
    direction = np.sign(o["beta1"] * m + (1 - o["beta1"]) * g)
    state["exp_avg"] = o["beta2"] * m + (1 - o["beta2"]) * g
    return x - o["lr"] * (direction + o["weight_decay"] * x)


STEPS = {"LAMB": lamb, "LARS": lars, "Lion": lion}


class PaperOptimizer:
    def __init__(self, rule, first, second, values):
        self.rule_step = STEPS[rule]
        self.parameters = values
        self.slots = [{} for _ in values]
        self.options = [
            {**DEFAULTS[rule], **(first if i in trajectory.FIRST_GROUP else second)}
            for i in range(len(values))
        ]

    def step(self, gradients):
        for i, g in enumerate(gradients):
            if g is None:
                continue
            x, o = self.parameters[i], self.options[i]
            updated = self.rule_step(x, -g if o["maximize"] else g, self.slots[i], o)
            assert updated.dtype == x.dtype
            self.parameters[i] = updated

    def values(self):
        return self.parameters

    def state(self):
        return self.slots


def main():
    cases = [(rule, *case) for rule, cases in CASES.items() for case in cases]
    trajectory.write(pathlib.Path(__file__).with_suffix(".json"), cases, PaperOptimizer)


main()
