#!/usr/bin/env python3
"""Trains a small network with Adam in PyTorch, from the beginning or from what lockstep has exported,
and prints the loss of each step."""

import argparse
import json
import pathlib

import torch

import safetensors_file

SWITCHES = "amsgrad", "maximize"
NUMBERS = "lr", "eps", "weight_decay"


def network():
    return torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 16),
                               torch.nn.Tanh(), torch.nn.Linear(16, 2))


def data():
    x = torch.rand(64, 4) * 2 - 1
    return x, torch.stack([torch.sin(3 * x[:, 0]) * x[:, 1], x[:, 2] ** 2 - x[:, 3]], dim=1)


def export(path, model, optimizer):
    group, = optimizer.param_groups
    names = [name for name, _ in model.named_parameters()]
    tensors = dict(model.state_dict())
    for name, parameter in model.named_parameters():
        state = optimizer.state[parameter]
        for slot in "exp_avg", "exp_avg_sq":
            tensors[f"state.{name}.{slot}"] = state[slot]
        tensors[f"state.{name}.step"] = torch.tensor(int(state["step"]))
    fields = {field: torch.tensor(group[field], dtype=torch.float64) for field in NUMBERS}
    fields |= {field: torch.tensor(group[field]) for field in SWITCHES}
    fields |= {f"beta{i + 1}": torch.tensor(beta, dtype=torch.float64)
               for i, beta in enumerate(group["betas"])}
    for field, value in fields.items():
        tensors[f"param_groups.0.{field}"] = value
    description = {"rule": "Adam", "param_groups": [{"name": "0", "params": names}], "scalars": ["step"]}
    safetensors_file.write(path, tensors, {"optimizer": json.dumps(description)})


def load(path, model, optimizer):
    tensors, metadata = safetensors_file.read(path)
    description = json.loads(metadata["optimizer"])
    assert description["rule"] == "Adam" and len(description["param_groups"]) == 1
    model.load_state_dict({name: tensors[name] for name in model.state_dict()})
    for name, parameter in model.named_parameters():
        state = {slot: tensors[f"state.{name}.{slot}"] for slot in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = state | {"step": tensors[f"state.{name}.step"].float()}
    group, = optimizer.param_groups
    for field in NUMBERS + SWITCHES:
        group[field] = tensors[f"param_groups.0.{field}"].item()
    group["betas"] = tuple(tensors[f"param_groups.0.beta{i}"].item() for i in (1, 2))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--data", type=pathlib.Path, default="data.safetensors",
                        help="what to train on; made where there is none")
    parser.add_argument("--from", dest="source", type=pathlib.Path, help="goes on from this file")
    parser.add_argument("--to", type=pathlib.Path, help="exports model and optimizer to this file")
    options = parser.parse_args()

    torch.manual_seed(1)
    torch.set_num_threads(1)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, betas=(0.85, 0.99), weight_decay=1e-3)
    if not options.data.exists():
        x, y = data()
        safetensors_file.write(options.data, {"x": x, "y": y}, {})
    tensors, _ = safetensors_file.read(options.data)
    if options.source:
        load(options.source, model, optimizer)
    for _ in range(options.steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(tensors["x"]), tensors["y"])
        loss.backward()
        optimizer.step()
        print(f"{loss.item():.9g}")
    if options.to:
        export(options.to, model, optimizer)


if __name__ == "__main__":
    main()
