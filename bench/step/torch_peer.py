"""The steps of `step` and `overlap` by torch's DistributedDataParallel over gloo: torch_peer.py ADDRESS
INTERFACE on each rank of an mpirun, whose rank 0 is at that address and has that network interface."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import peer
import torch_ranks

import torch
from torch import distributed, nn


def fully_connected(widths, activation):
    layers = []
    for i in range(len(widths) - 1):
        layers += [activation()] * (i > 0) + [nn.Linear(widths[i], widths[i + 1])]
    return nn.Sequential(*layers)


def convolutional():
    layers = []
    for inputs, outputs in (1, 32), (32, 64):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), fully_connected([7 * 7 * 64, 128, 10], nn.ReLU))


def step(model, inputs, batch, loss, rule, dtype=torch.float32, **options):
    """Milliseconds of a step. `inputs` is the shape of a sample."""
    def set_up():
        torch.set_default_dtype(dtype)
        torch.manual_seed(1)
        replica = nn.parallel.DistributedDataParallel(model(), gradient_as_bucket_view=True)
        # So low a rate for the reason that networks.hpp gives.
        optimizer = rule(replica.parameters(), lr=1e-8, foreach=True, **options)
        torch.manual_seed(2 + distributed.get_rank())
        with torch.no_grad():
            shape = model()(torch.randn(batch, *inputs)).shape
        batches = [(torch.randn(batch, *inputs),
                    torch.randn(shape) if loss is nn.functional.mse_loss else torch.randint(shape[1], shape[:1]))
                   for _ in range(16)]
        count = 0

        def train():
            nonlocal count
            optimizer.zero_grad(set_to_none=True)
            samples, targets = batches[count % len(batches)]
            loss(replica(samples), targets).backward()
            optimizer.step()
            count += 1

        return lambda seconds: 1e3 * torch_ranks.median_time(seconds, train)

    return set_up


def perceptron(widths, batch, activation=nn.ReLU, loss=nn.functional.cross_entropy, rule=torch.optim.Adam,
               **options):
    return step(lambda: fully_connected(widths, activation), [widths[0]], batch, loss, rule, **options)


torch.set_num_threads(1)
torch_ranks.join(*sys.argv[1:])
squares = nn.functional.mse_loss
cases = {"step-1gbit": perceptron([1024, 1024, 1024, 1024, 1024, 10], 512)}
for suffix, dtype in ("", torch.float32), ("-f64", torch.float64):
    cases.update({
        "seed" + suffix: perceptron([8, 16, 32, 64, 8], 5, loss=squares, rule=torch.optim.SGD, momentum=0.9, dtype=dtype),
        "surrogate" + suffix: perceptron([32, 128, 128, 16], 64, nn.Tanh, squares, dtype=dtype),
        "mnist" + suffix: perceptron([784, 512, 512, 10], 64, dtype=dtype),
        "large" + suffix: perceptron([1024, 2048, 2048, 2048, 10], 256, dtype=dtype),
        "cnn" + suffix: step(convolutional, [1, 28, 28], 64, nn.functional.cross_entropy, torch.optim.Adam, dtype),
    })


def images(set_up, batch=64):
    """Images a second of all ranks together."""
    def set_up_images():
        step_time = set_up()
        return lambda seconds: batch * distributed.get_world_size() / (1e-3 * step_time(seconds))

    return set_up_images


# Ours have their state in shares then, to the same bits.
cases |= {name + "-sharded": set_up for name, set_up in cases.items()}
cases |= {"mnist-images": images(cases["mnist"]), "large-images": images(cases["large"], 256),
          "cnn-images": images(cases["cnn"])}
peer.serve(f"torch {torch.__version__}", cases, torch_ranks.requests(), answers=distributed.get_rank() == 0)
