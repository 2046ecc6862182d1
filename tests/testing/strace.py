"""Whether processes can be traced."""

import shutil
import subprocess


def why_not():
    """Why processes cannot be traced here, if so."""
    if not shutil.which("strace"):
        return "there is no strace"
    attempt = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True)
    return "" if attempt.returncode == 0 else f"strace: {attempt.stderr.strip()}"
