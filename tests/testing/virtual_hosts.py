"""The virtual hosts of scripts/cluster, for tests in Python."""

import os
import pathlib
import subprocess
import unittest

CLUSTER = str(pathlib.Path(__file__).resolve().parents[2] / "scripts" / "cluster")
# Where programs such as tc are, which not every user's PATH has.
os.environ["PATH"] += ":/usr/sbin:/sbin"


def need_hosts(*options):
    """Skips a test, or those of a class in its set-up, where this machine lets nobody make hosts."""
    job = subprocess.run([CLUSTER, "run", "-H", "1", *options, "true"], text=True, capture_output=True, timeout=60)
    if "need root" in job.stderr or "--latency needs" in job.stderr or "not found: " in job.stderr:
        raise unittest.SkipTest(job.stderr.strip())
