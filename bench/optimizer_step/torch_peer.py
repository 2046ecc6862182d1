"""The steps of ours.cpp by torch's foreach optimizers, and by the loop that these replace."""

import pathlib
import sys

try:
    import torch
except ImportError as error:
    sys.exit(f"torch is missing for {sys.executable} (Debian package python3-torch): {error}")

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import peer

NUMBERS = 10_000_000


def step(count, rule, dtype=torch.float32, foreach=True, **options):
    def set_up():
        parameters = [torch.nn.Parameter(torch.randn(NUMBERS // count, dtype=dtype)) for _ in range(count)]
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        optimizer = rule(parameters, foreach=foreach, **options)
        return lambda seconds: 1e3 * peer.median_time(seconds, optimizer.step)

    return set_up


torch.set_num_threads(1)
adam = torch.optim.Adam
peer.serve(f"torch {torch.__version__}", {
    "adam-1": step(1, adam),
    "adam-1-loop": step(1, adam, foreach=False),
    "adam-100": step(100, adam),
    "adam-10000": step(10_000, adam),
    "adam-10000-separate": step(10_000, adam),
    "adam-f64-1": step(1, adam, torch.float64),
    "adam-f64-10000": step(10_000, adam, torch.float64),
    "adamw-1": step(1, torch.optim.AdamW),
    "adamw-10000": step(10_000, torch.optim.AdamW),
    "sgd-1": step(1, torch.optim.SGD, lr=1e-3, momentum=0.9),
    "sgd-10000": step(10_000, torch.optim.SGD, lr=1e-3, momentum=0.9),
})
