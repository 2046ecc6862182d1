"""The job of first_step.cpp by torch's DistributedDataParallel over gloo."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import torch_ranks

import torch
from torch import nn

torch.set_num_threads(1)
torch_ranks.join("127.0.0.1", "lo")
replica = nn.parallel.DistributedDataParallel(nn.Linear(8, 8))
optimizer = torch.optim.SGD(replica.parameters(), lr=0.1)
replica(torch.ones(5, 8)).sum().backward()
optimizer.step()
