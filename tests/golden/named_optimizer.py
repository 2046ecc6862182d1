#!/usr/bin/env python3
"""Writes named_optimizer.json: what PyTorch's own optimizers make of the training of
optim/named_optimizer_test.cpp, on the batches of all ranks together. In double precision, so that
the distance to it is the rounding of the library alone."""

import json
import pathlib

import numpy as np
import torch
from torch import nn

from philox import uniform


class DummyModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.net1 = nn.Sequential(nn.Linear(8, 16), nn.ReLU())
        self.net2 = nn.Sequential(nn.Linear(16, 32), nn.ReLU())
        self.net3 = nn.Linear(32, 64)
        self.net4 = nn.Sequential(nn.ReLU(), nn.Linear(64, 8))
        self.double()
        fan_in = 1
        for index, parameter in enumerate(self.parameters()):
            if parameter.dim() == 2:
                fan_in = parameter.shape[1]
            bound = 1 / np.sqrt(fan_in)
            values = uniform(index, tuple(parameter.shape), -bound, bound)
            parameter.data = torch.from_numpy(values).double()

    def forward(self, x):
        return self.net4(self.net3(self.net2(self.net1(x))))


class Training:
    """Two iterations a call, on the batches of all ranks; gradients are never zeroed."""

    def __init__(self, ranks):
        self.ranks = ranks
        self.model = DummyModel()
        self.iteration = 0
        self.snapshots = []

    def run(self, *optimizers):
        for _ in range(2):
            self.iteration += 1
            for rank in range(self.ranks):
                x = torch.from_numpy(uniform(1000 * self.iteration + rank, (5, 8), 0.0, 1.0))
                (self.model(x.double()).sum() / self.ranks).backward()
            for optimizer in optimizers:
                optimizer.step()
        tensors = {}
        for name, parameter in self.model.named_parameters():
            tensors[name] = summary(parameter)
            for optimizer in optimizers:
                for slot, value in optimizer.state.get(parameter, {}).items():
                    if slot != "step":
                        tensors[f"{name}/{slot}"] = summary(value)
        self.snapshots.append(tensors)


def summary(tensor):
    values = tensor.detach().numpy().reshape(-1)
    stride = max(1, values.size // 6)
    numbers = [np.abs(values).max(), values.sum(), (values**2).sum(), *values[::stride][:6]]
    return [float(f"{number:.9g}") for number in numbers]


def two_groups(model):
    groups = [{"params": model.net1.parameters()}, {"params": model.net3.parameters(), "lr": 1e-3}]
    return torch.optim.SGD(groups, lr=1e-2, momentum=0.9)


def state_dict(training):
    training.run(torch.optim.SGD(training.model.parameters(), lr=1e-2, momentum=0.9))


def state_dict_multi_param_group(training):
    model = training.model
    adam = torch.optim.Adam(
        [{"params": model.net2.parameters()}, {"params": model.net4.parameters(), "lr": 1e-5}]
    )
    training.run(two_groups(model), adam)


def load_into_another(training, first):
    training.run(first)
    saved = {
        parameter: state["momentum_buffer"].clone() for parameter, state in first.state.items()
    }
    same_groups = len(first.param_groups) == 1
    second = torch.optim.SGD(training.model.parameters(), lr=1e-2, momentum=0.6)
    training.run(second)
    for parameter, momentum_buffer in saved.items():
        second.state[parameter]["momentum_buffer"] = momentum_buffer
    if same_groups:
        second.param_groups[0]["momentum"] = 0.9
    training.run(second)


def load_state_dict(training):
    load_into_another(
        training, torch.optim.SGD(training.model.parameters(), lr=1e-2, momentum=0.9)
    )


def load_state_dict_conditional_training(training):
    load_into_another(training, two_groups(training.model))


def add_param_group(training):
    optimizer = two_groups(training.model)
    training.run(optimizer)
    optimizer.add_param_group({"params": training.model.net2.parameters(), "lr": 1e-5})
    training.run(optimizer)
    optimizer.add_param_group({"params": training.model.net4[1].weight, "lr": 1e-3})
    training.run(optimizer)


def main():
    golden = {}
    tests = [
        state_dict,
        state_dict_multi_param_group,
        load_state_dict,
        load_state_dict_conditional_training,
        add_param_group,
    ]
    for test in tests:
        golden[test.__name__] = {}
        for ranks in (1, 2, 4):
            training = Training(ranks)
            test(training)
            golden[test.__name__][str(ranks)] = training.snapshots
    text = json.dumps(golden, separators=(",", ":")).replace("],", "],\n")
    pathlib.Path(__file__).with_suffix(".json").write_text(text + "\n")


main()
