"""Runs a test program on several hosts, where that makes a number of ranks on which it has tests:
on_hosts.py SCRIPTS/CLUSTER RANKS[,RANKS...] PROGRAM

LOCKSTEP_TEST_HOSTS says on how many hosts, and with how many ranks on each: 2x2 where it is not set. The hosts are
those of the SLURM job that this is a part of, or else virtual ones.
"""

import os
import pathlib
import subprocess
import sys

CLUSTER, COUNTS, PROGRAM = sys.argv[1:]
hosts, ranks = map(int, os.environ.get("LOCKSTEP_TEST_HOSTS", "2x2").split("x"))

if str(hosts * ranks) not in COUNTS.split(","):
    print("0 passed, 0 failed, 0 skipped")
    sys.exit()
if "SLURM_JOB_ID" in os.environ:
    launch = pathlib.Path(CLUSTER).with_name("launch")
    sys.exit(subprocess.run([launch, "-n", str(hosts * ranks), PROGRAM]).returncode)
probe = subprocess.run([CLUSTER, "run", "-H", "1", "true"], capture_output=True, text=True, timeout=60)
if "need root" in probe.stderr:
    print(probe.stderr.strip())
    print("0 passed, 0 failed, 1 skipped")
    sys.exit()
sys.exit(subprocess.run([CLUSTER, "run", "-H", str(hosts), "-r", str(ranks), "--", PROGRAM]).returncode)
