"""The time of a solver's step in a program of its own, started anew for each answer: host.py LAUNCH PROGRAM."""

import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import peer

launch, program = sys.argv[1:]


def measure(seconds):
    job = subprocess.run([launch, "-n", "2", program, str(seconds)], check=True, stdout=subprocess.PIPE, text=True)
    return float(job.stdout)


peer.serve(f"solver {pathlib.Path(program).name}", {"idle": lambda: measure})
