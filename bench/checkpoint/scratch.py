"""What the Python programs of this benchmark have in common: how much they write, and where."""

import shutil
import sys
import tempfile


def state_bytes(extent):
    return (128 if extent == "quick" else 1024) << 20


def folder(parent, extent):
    """A folder that goes with this program, where there is room in it for two such files."""
    free = shutil.disk_usage(parent).free
    if free < 2 * state_bytes(extent):
        sys.exit(f"expected {2 * state_bytes(extent)} bytes free in {parent}, found {free}")
    return tempfile.TemporaryDirectory(prefix="checkpoint-", dir=parent)
