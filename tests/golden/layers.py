"""Writes layers.json: values and gradients of layers and losses as PyTorch computes them, for
tests/nn/torch_values_test.cpp.

Run by hand, with PyTorch 1.13 or later: python3 tests/golden/layers.py
"""

import json
import pathlib

import torch

ROWS, IN, OUT = 3, 4, 5
DTYPES = {"f32": torch.float32, "f64": torch.float64}


def inputs(*shape):
    """Numbers with few digits, so that they are the same in both precisions: multiples of 1/64."""
    count = torch.Size(shape).numel()
    return (torch.randint(-190, 191, (count,)).double() / 64).reshape(shape)


def flat(tensor):
    return [float(f"{value:.17g}") for value in tensor.detach().double().flatten().tolist()]


def case(function, tensors, cotangent):
    """The result of function(tensors) and, for each dtype, the gradients of sum(result · cotangent)."""
    found = {}
    for name, dtype in DTYPES.items():
        leaves = [tensor.to(dtype).requires_grad_() for tensor in tensors]
        result = function(*leaves)
        (result * cotangent.to(dtype)).sum().backward()
        found[name] = {"value": flat(result), "gradients": [flat(leaf.grad) for leaf in leaves]}
    return {
        "inputs": [{"shape": list(tensor.shape), "data": flat(tensor)} for tensor in tensors],
        "cotangent": flat(cotangent),
        **found,
    }


def main():
    torch.manual_seed(0)
    functional = torch.nn.functional
    labels = [1, 0, 4]
    cases = {"linear": case(functional.linear, [inputs(ROWS, IN), inputs(OUT, IN), inputs(OUT)],
                            inputs(ROWS, OUT))}
    for activation in torch.relu, torch.tanh, torch.sigmoid, functional.gelu:
        cases[activation.__name__] = case(activation, [inputs(ROWS, OUT)], inputs(ROWS, OUT))
    one = torch.ones((), dtype=torch.float64)
    cases["mean_squared_error"] = case(
        functional.mse_loss, [inputs(ROWS, OUT), inputs(ROWS, OUT)], one)
    cases["cross_entropy"] = case(
        lambda logits: functional.cross_entropy(logits, torch.tensor(labels)),
        [inputs(ROWS, OUT)], one)
    cases["cross_entropy"]["labels"] = labels
    cases["conv2d"] = case(
        lambda x, weight, bias: functional.conv2d(x, weight, bias, stride=(2, 1), padding=(1, 2)),
        [inputs(2, 2, 4, 3), inputs(3, 2, 3, 2), inputs(3)], inputs(2, 3, 2, 6))
    # Of whole numbers, among which there are ties.
    cases["max_pool2d"] = case(
        lambda x: functional.max_pool2d(x, (3, 2), stride=(2, 1), padding=(1, 0)),
        [inputs(2, 1, 5, 4).round()], inputs(2, 1, 3, 3))
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in cases.items()]
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
