"""Reduction and step of torch's ZeroRedundancyOptimizer over gloo: torch_peer.py ADDRESS INTERFACE on each
rank of an mpirun, whose rank 0 is at that address and has that network interface."""

import ctypes
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import peer
import torch_ranks

import torch
from torch import distributed, nn
from torch.distributed.optim import ZeroRedundancyOptimizer

PARAMETERS, SIZE = 20, 500_000


def proportional_bytes():
    """Of memory of this process, of which a page that several share counts in parts."""
    ctypes.CDLL(None).malloc_trim(0)
    for line in pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return 1024 * int(line.split()[1])


class Training:
    """The reduction of DistributedDataParallel, without a backward, and the step."""

    def __init__(self):
        torch.manual_seed(1)
        self.parameters = [nn.Parameter(torch.randn(SIZE)) for _ in range(PARAMETERS)]
        # Buckets of one memory, as DistributedDataParallel has them.
        self.buckets = torch.randn(PARAMETERS * SIZE).chunk(2)
        gradients = [part for bucket in self.buckets for part in bucket.chunk(PARAMETERS // 2)]
        for parameter, gradient in zip(self.parameters, gradients):
            parameter.grad = gradient
        self.optimizer = ZeroRedundancyOptimizer(self.parameters, torch.optim.Adam, lr=1e-8, foreach=True)

    def step(self):
        for work in [distributed.all_reduce(bucket, async_op=True) for bucket in self.buckets]:
            work.wait()
        for bucket in self.buckets:
            bucket.div_(distributed.get_world_size())
        self.optimizer.step()


def adam():
    training = Training()
    return lambda seconds: 1e3 * torch_ranks.median_time(seconds, training.step)


def memory():
    """Of the ranks' mean, once all that a step needs is there."""
    before = proportional_bytes()
    training = Training()
    most = 0
    for _ in range(3):
        training.step()
        most = max(most, proportional_bytes() - before)
    grown = torch.tensor([most], dtype=torch.float64)
    distributed.all_reduce(grown)
    each = grown.item() / distributed.get_world_size() / (PARAMETERS * SIZE)
    return lambda seconds: each


torch.set_num_threads(1)
torch_ranks.join(*sys.argv[1:])
peer.serve(f"torch {torch.__version__}", {"adam-in-reduction": adam, "memory": memory}, torch_ranks.requests(),
           answers=distributed.get_rank() == 0)
