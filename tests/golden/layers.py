"""Writes layers.json: values and gradients of layers and losses as PyTorch computes them, for
tests/nn/torch_values_test.cpp.

Run by hand, with PyTorch 1.13 or later: python3 tests/golden/layers.py
"""

import copy
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


def of_module(module, x, cotangent):
    """The case of a module, whose parameters are inputs as well."""
    values = [inputs(*parameter.shape) / 4 for parameter in module.parameters()]

    def call(x, *numbers):
        own = copy.deepcopy(module).to(x.dtype)
        for parameter, value in zip(own.parameters(), numbers):
            parameter.data.copy_(value)
            # What a parameter gets is what the input gets that its numbers have come from.
            parameter.register_hook(lambda gradient, value=value: setattr(value, "grad", gradient))
        result = own(x)
        return result[0] if isinstance(result, tuple) else result

    return case(call, [x, *values], cotangent)


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
    for activation in functional.silu, functional.softplus, functional.leaky_relu, functional.elu:
        cases[activation.__name__] = case(activation, [inputs(ROWS, OUT)], inputs(ROWS, OUT))
    cases["softplus_beta"] = case(lambda x: functional.softplus(x, beta=2.5, threshold=1e9),
                                  [inputs(ROWS, OUT)], inputs(ROWS, OUT))
    cases["leaky_relu_slope"] = case(lambda x: functional.leaky_relu(x, 0.3), [inputs(ROWS, OUT)], inputs(ROWS, OUT))
    cases["elu_alpha"] = case(lambda x: functional.elu(x, 0.7), [inputs(ROWS, OUT)], inputs(ROWS, OUT))
    for activation in functional.softmax, functional.log_softmax:
        cases[activation.__name__] = case(lambda x: activation(x, dim=-1), [inputs(2, ROWS, OUT)], inputs(2, ROWS, OUT))
    for loss in functional.l1_loss, functional.huber_loss:
        cases[loss.__name__] = case(loss, [inputs(ROWS, OUT), inputs(ROWS, OUT)], one)
    cases["huber_loss_delta"] = case(lambda x, y: functional.huber_loss(x, y, delta=0.5),
                                     [inputs(ROWS, OUT), inputs(ROWS, OUT)], one)
    cases["kl_divergence"] = case(lambda x, y: functional.kl_div(x, y, reduction="batchmean"),
                                  [inputs(ROWS, OUT), inputs(ROWS, OUT).abs()], one)
    cases["nll_loss"] = case(lambda x: functional.nll_loss(x, torch.tensor(labels)), [inputs(ROWS, OUT)], one)
    cases["nll_loss"]["labels"] = labels
    cases["binary_cross_entropy"] = case(functional.binary_cross_entropy_with_logits,
                                         [inputs(ROWS, OUT), inputs(ROWS, OUT).sigmoid().mul(64).round() / 64], one)
    cases["conv2d_groups"] = case(
        lambda x, weight, bias: functional.conv2d(x, weight, bias, stride=(1, 2), padding=(2, 1), dilation=(2, 1),
                                                  groups=2),
        [inputs(2, 4, 4, 5), inputs(6, 2, 3, 2), inputs(6)], inputs(2, 6, 4, 3))
    cases["conv1d"] = case(
        lambda x, weight, bias: functional.conv1d(x, weight, bias, stride=2, padding=1, dilation=2),
        [inputs(2, 3, 9), inputs(4, 3, 3), inputs(4)], inputs(2, 4, 4))
    cases["conv3d"] = case(
        lambda x, weight, bias: functional.conv3d(x, weight, bias, stride=(1, 2, 1), padding=(1, 0, 1),
                                                  dilation=(1, 1, 2)),
        [inputs(1, 2, 3, 4, 5), inputs(2, 2, 2, 2, 2), inputs(2)], inputs(1, 2, 4, 2, 5))
    cases["conv_transpose1d"] = case(
        lambda x, weight, bias: functional.conv_transpose1d(x, weight, bias, stride=3, padding=1, output_padding=2),
        [inputs(2, 3, 4), inputs(3, 2, 3), inputs(2)], inputs(2, 2, 12))
    cases["conv_transpose2d"] = case(
        lambda x, weight, bias: functional.conv_transpose2d(x, weight, bias, stride=(2, 1), padding=(1, 0),
                                                            output_padding=(1, 0), groups=2, dilation=(1, 2)),
        [inputs(2, 4, 3, 3), inputs(4, 3, 3, 2), inputs(6)], inputs(2, 6, 6, 5))
    cases["conv_transpose3d"] = case(
        lambda x, weight, bias: functional.conv_transpose3d(x, weight, bias, stride=(1, 2, 2), padding=(0, 1, 0)),
        [inputs(1, 2, 2, 3, 2), inputs(2, 2, 2, 3, 2), inputs(2)], inputs(1, 2, 3, 5, 4))
    cases["max_pool1d"] = case(lambda x: functional.max_pool1d(x, 3, stride=2, padding=1),
                               [inputs(2, 2, 6).round()], inputs(2, 2, 3))
    cases["max_pool3d"] = case(lambda x: functional.max_pool3d(x, (2, 2, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
                               [inputs(1, 2, 3, 4, 5).round()], inputs(1, 2, 2, 3, 3))
    cases["avg_pool1d"] = case(lambda x: functional.avg_pool1d(x, 3, stride=2, padding=1),
                               [inputs(2, 2, 6)], inputs(2, 2, 3))
    cases["avg_pool2d"] = case(
        lambda x: functional.avg_pool2d(x, (3, 2), stride=(2, 1), padding=(1, 1), count_include_pad=False),
        [inputs(2, 2, 5, 4)], inputs(2, 2, 3, 5))
    cases["avg_pool3d"] = case(lambda x: functional.avg_pool3d(x, 2, stride=(1, 2, 2), padding=(0, 1, 0)),
                               [inputs(1, 2, 3, 4, 5)], inputs(1, 2, 2, 3, 2))
    cases["global_avg_pool"] = case(lambda x: functional.adaptive_avg_pool2d(x, 1).flatten(1),
                                    [inputs(2, 3, 4, 5)], inputs(2, 3))
    cases["layer_norm"] = case(lambda x, weight, bias: functional.layer_norm(x, (3, 4), weight, bias, 1e-3),
                               [inputs(2, 5, 3, 4), inputs(3, 4), inputs(3, 4)], inputs(2, 5, 3, 4))
    cases["group_norm"] = case(lambda x, weight, bias: functional.group_norm(x, 2, weight, bias, 1e-3),
                               [inputs(2, 4, 3, 2), inputs(4), inputs(4)], inputs(2, 4, 3, 2))
    for name, module in ("lstm", torch.nn.LSTM), ("gru", torch.nn.GRU):
        cases[name] = of_module(module(3, 4, batch_first=True), inputs(2, 5, 3), inputs(2, 5, 4))
        cases[f"{name}_deep"] = of_module(module(3, 2, num_layers=2, bidirectional=True, batch_first=True),
                                          inputs(2, 3, 3), inputs(2, 3, 4))
    cases["transformer"] = of_module(
        torch.nn.TransformerEncoderLayer(4, 2, 6, dropout=0, batch_first=True), inputs(2, 3, 4), inputs(2, 3, 4))
    cases["transformer_norm_first"] = of_module(
        torch.nn.TransformerEncoderLayer(4, 2, 6, dropout=0, batch_first=True, activation="gelu", norm_first=True),
        inputs(2, 3, 4), inputs(2, 3, 4))
    cases["causal_attention"] = case(
        lambda q, k, v: functional.multi_head_attention_forward(
            q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1), 4, 2,
            torch.eye(4, dtype=q.dtype).repeat(3, 1), None, None, None, False, 0,
            torch.eye(4, dtype=q.dtype), None, attn_mask=torch.ones(3, 3, dtype=torch.bool).triu(1))[0].transpose(0, 1),
        [inputs(2, 3, 4), inputs(2, 3, 4), inputs(2, 3, 4)], inputs(2, 3, 4))
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in cases.items()]
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
