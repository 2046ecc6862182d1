"""What the programs have in common that measure torch on the ranks of an mpirun, over gloo."""

import datetime
import os
import statistics
import sys
import time

try:
    from torch import distributed
except ImportError as error:
    sys.exit(f"torch is missing for {sys.executable} (Debian package python3-torch): {error}")


def join(address, interface):
    """Makes this process a rank of those that mpirun has started."""
    os.environ["GLOO_SOCKET_IFNAME"] = interface
    # A port that other jobs on this machine do not use.
    job = int(os.environ["PMIX_NAMESPACE"])
    distributed.init_process_group(
        "gloo", init_method=f"tcp://{address}:{10_000 + (job >> 16) % 20_000}",
        rank=int(os.environ["OMPI_COMM_WORLD_RANK"]), world_size=int(os.environ["OMPI_COMM_WORLD_SIZE"]),
        timeout=datetime.timedelta(days=1))  # as long as another program may have its turn


def requests():
    """The lines on rank 0's stdin, on all ranks, which sleep meanwhile."""
    while True:
        line = [sys.stdin.readline() if distributed.get_rank() == 0 else None]
        distributed.broadcast_object_list(line)
        if not line[0]:
            return
        yield line[0]


def median_time(seconds, call):
    """Rank 0's median time of a call that is collective, in batches that make the barrier before them
    short beside what is measured."""
    shortest_batch, fewest = 5e-3, 3

    def batch_time(batch):
        distributed.barrier()
        start = time.monotonic()
        for _ in range(batch):
            call()
        return time.monotonic() - start

    def agreed(value):
        values = [value]
        distributed.broadcast_object_list(values)
        return values[0]

    batch = 1
    while (elapsed := agreed(batch_time(batch))) < shortest_batch:
        batch *= 2
    times = [batch_time(batch) for _ in range(max(fewest, round(seconds / elapsed)))]
    return statistics.median(times) / batch
