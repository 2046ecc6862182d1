"""What comes before a training: start.py ROOT PROGRAM [EMPTY PROGRAM]."""

import pathlib
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import peer

root, program, *empty = sys.argv[1:]


def job(path):
    """Seconds of a job on two ranks from its start to its end."""
    start = time.monotonic()
    python = [sys.executable] if path.endswith(".py") else []
    subprocess.run([f"{root}/scripts/launch", "-n", "2", *python, path], check=True, stdin=subprocess.DEVNULL)
    return time.monotonic() - start


def first_step(seconds):
    """Milliseconds beyond those of the empty program."""
    beyond = []
    start = time.monotonic()
    while len(beyond) < 5 or time.monotonic() - start < seconds:
        beyond.append(job(program) - job(*empty))
    return {"value": max(1e3 * statistics.median(beyond), 0.01), "peer": 50}  # or lost in the noise


def header(seconds):
    """Seconds to read the library's header, and nothing else."""
    mpi = subprocess.run(["pkg-config", "--cflags", "ompi-cxx"], check=True, stdout=subprocess.PIPE, text=True)
    command = ["c++", "-std=c++20", "-fsyntax-only", "-x", "c++", "-DOMPI_SKIP_MPICXX=1", f"-I{root}/include",
               *mpi.stdout.split(), "-"]
    return {"value": peer.median_time(seconds, lambda: subprocess.run(
        command, check=True, input="#include <lockstep/lockstep.hpp>\n", text=True)), "peer": 0.6}


cases = {"job": lambda: lambda seconds: 1e3 * peer.median_time(seconds, lambda: job(program))}
if empty:
    cases |= {"first-step": lambda: first_step, "header": lambda: header}
peer.serve(pathlib.Path(program).name, cases)
