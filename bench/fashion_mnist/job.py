"""A training from its start to its end, started anew for each answer: job.py EXTENT FOLDER COMMAND..."""

import pathlib
import re
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import peer

extent, scratch, *command = sys.argv[1:]
# What a training of so many epochs that went well reaches, in percent of the test images.
epochs, least_accuracy = (1, 82) if extent == "quick" else (5, 87)


def seconds_of_training(_):
    with tempfile.TemporaryDirectory(prefix="training-", dir=scratch) as folder:
        start = time.monotonic()
        job = subprocess.run([*command, "--epochs", str(epochs), "--out", f"{folder}/run"], text=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        seconds = time.monotonic() - start
    accuracies = re.findall(r"test accuracy +([0-9.]+) %", job.stdout)
    if job.returncode != 0 or not accuracies or float(accuracies[-1]) < least_accuracy:
        sys.exit(f"expected a test accuracy of {least_accuracy} %, found status {job.returncode} and:\n{job.stdout}")
    return seconds


peer.serve(f"{epochs} epochs of {pathlib.Path(command[-1]).name}", {"training": lambda: seconds_of_training})
