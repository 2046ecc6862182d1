"""How fast torch saves and loads a model and its optimizer: torch_peer.py FOLDER EXTENT [fsync] [restore].
With `restore`, what was loaded goes into the models and optimizers of two processes."""

import os
import pathlib
import sys

try:
    import torch
except ImportError as error:
    sys.exit(f"torch is missing for {sys.executable} (Debian package python3-torch): {error}")

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import peer
import scratch

parent, extent, *options = sys.argv[1:]
size = scratch.state_bytes(extent)


def make_training():
    """As many parameters as those of ours.cpp, and their two moments."""
    count = 18
    parameters = [torch.nn.Parameter(torch.randn(size // (4 * 3 * count))) for _ in range(count)]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer = torch.optim.Adam(parameters)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {"model": torch.nn.ParameterList(parameters), "optimizer": optimizer}


def on_two_processes(call):
    """A call that another process makes at the same time."""
    started, start = os.pipe()
    done, end = os.pipe()
    if os.fork() == 0:
        os.close(start)
        while os.read(started, 1):
            call()
            os.write(end, b".")
        os._exit(0)

    def both():
        os.write(start, b".")
        call()
        if not os.read(done, 1):
            sys.exit("the other process has ended")

    os.close(end)
    return both


with scratch.folder(parent, extent) as folder:
    path = f"{folder}/state.pt"

    def save(training):
        with open(path, "wb") as file:
            torch.save({name: part.state_dict() for name, part in training.items()}, file)
            if "fsync" in options:
                file.flush()
                os.fsync(file.fileno())

    def load(training):
        state = torch.load(path)
        if "restore" in options:
            for name, part in training.items():
                part.load_state_dict(state[name])

    def rate(call):
        training = make_training()
        save(training)
        measured = lambda: call(training)
        if "restore" in options:
            measured = on_two_processes(measured)
        return lambda seconds: 1e-9 * size / peer.median_time(seconds, measured)

    torch.set_num_threads(1)
    peer.serve(f"torch {torch.__version__}", {"save": lambda: rate(save), "load": lambda: rate(load)})
