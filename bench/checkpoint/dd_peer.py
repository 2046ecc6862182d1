"""How fast dd writes and syncs as many bytes as a checkpoint has: dd_peer.py FOLDER EXTENT."""

import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import peer
import scratch

parent, extent = sys.argv[1:]
size = scratch.state_bytes(extent)
file_system = subprocess.run(["stat", "-f", "-c", "%T", parent], stdout=subprocess.PIPE, text=True).stdout.strip()

with scratch.folder(parent, extent) as folder:
    source, target = f"{folder}/source", f"{folder}/target"

    def write():
        subprocess.run(["dd", f"if={source}", f"of={target}", "bs=4M", "conv=fsync", "status=none"], check=True)

    def set_up():
        with open(source, "wb") as file:
            for _ in range(size >> 20):
                file.write(os.urandom(1 << 20))
        return lambda seconds: 1e-9 * size / peer.median_time(seconds, write)

    peer.serve(f"dd in {parent} ({file_system})", {"save": set_up})
