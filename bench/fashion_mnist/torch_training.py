"""What examples/fashion_mnist does by default, by torch's DistributedDataParallel over gloo: torch_training.py on each
rank of an mpirun."""

import argparse
import gzip
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import torch_ranks

import numpy
import torch
from torch import distributed, nn

BATCH, TEST_BATCH, LOGGED_EVERY = 64, 500, 20


def read_split(folder, split):
    """Images, normalised, and labels."""
    def numbers(kind, header):
        with gzip.open(folder / f"{split}-{kind}-ubyte.gz") as file:
            return torch.from_numpy(numpy.frombuffer(file.read(), numpy.uint8, offset=header).copy())

    images = numbers("images-idx3", 16).reshape(-1, 784).to(torch.float32)
    return images.div_(255).sub_(0.2860).div_(0.3530), numbers("labels-idx1", 8).to(torch.int64)


def scores(logits, labels, loss):
    return torch.stack([loss.detach() * len(labels), (logits.argmax(1) == labels).sum(),
                        torch.tensor(float(len(labels)))])


def over_all_ranks(score):
    """Mean loss and accuracy."""
    distributed.all_reduce(score)
    return (score[0] / score[2]).item(), (score[1] / score[2]).item()


def evaluate(model, images, labels):
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    total = torch.zeros(3)
    model.eval()
    with torch.no_grad():
        end = len(images) * (rank + 1) // ranks
        for begin in range(len(images) * rank // ranks, end, TEST_BATCH):
            part = slice(begin, min(begin + TEST_BATCH, end))
            logits = model(images[part])
            total += scores(logits, labels[part], nn.functional.cross_entropy(logits, labels[part]))
    model.train()
    return over_all_ranks(total)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=pathlib.Path, default="/usr/share/datasets/fashion-mnist")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch_ranks.join("127.0.0.1", "lo")
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    images, labels = read_split(options.data, "train")
    test_images, test_labels = read_split(options.data, "t10k")
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    replica = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4, foreach=True)
    options.out.mkdir(exist_ok=True)
    metrics = (options.out / f"metrics-{rank}.jsonl").open("w")
    step = 0
    for epoch in range(options.epochs):
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(epoch))
        interval = torch.zeros(3)
        for begin in range(BATCH * rank, len(order), BATCH * ranks):
            part = order[begin:begin + BATCH]
            optimizer.zero_grad(set_to_none=True)
            logits = replica(images[part])
            loss = nn.functional.cross_entropy(logits, labels[part])
            loss.backward()
            optimizer.step()
            interval += scores(logits, labels[part], loss)
            step += 1
            if step % LOGGED_EVERY == 0:
                loss, accuracy = over_all_ranks(interval)
                metrics.write(json.dumps({"step": step, "loss": loss, "accuracy": accuracy}) + "\n")
                interval = torch.zeros(3)
        loss, accuracy = evaluate(model, test_images, test_labels)
        if rank == 0:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()},
                       options.out / f"step-{step}.pt")
            print(f"loss {loss:.3f}, test accuracy {100 * accuracy:.2f} %", flush=True)


main()
