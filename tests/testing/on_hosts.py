"""Runs a test program on two hosts of two ranks: on_hosts.py SCRIPTS/CLUSTER PROGRAM [ARGUMENT...]"""

import subprocess
import sys

CLUSTER, *PROGRAM = sys.argv[1:]

probe = subprocess.run([CLUSTER, "run", "-H", "1", "true"], capture_output=True, text=True, timeout=60)
if "need root" in probe.stderr:
    print(probe.stderr.strip())
    print("0 passed, 0 failed, 1 skipped")
    sys.exit()
sys.exit(subprocess.run([CLUSTER, "run", "-H", "2", "-r", "2", "--", *PROGRAM]).returncode)
