"""An installation of the build into an empty folder."""

import os
import re
import subprocess


def run(*command, **options):
    """What a command prints; AssertionError, with all that it has said, where it fails."""
    job = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                         timeout=200, **options)
    if job.returncode != 0:
        raise AssertionError(f"{command} failed:\n{job.stdout}{job.stderr}")
    return job.stdout


class Installation:
    """Its `prefix`, the folder of its `libraries`, and the `environment` in which pkg-config finds it."""

    def __init__(self, build, folder):
        run("meson", "install", "-C", build, "--no-rebuild", "--destdir", folder / "stage")
        description, = folder.rglob("lockstep.pc")
        # The staged tree becomes a prefix of its own.
        prefix = re.search(r"^prefix=/(.*)$", description.read_text(), re.MULTILINE)[1]
        self.prefix = folder / "prefix"
        (folder / "stage" / prefix).rename(self.prefix)
        for description in self.prefix.rglob("*.pc"):
            description.write_text(description.read_text().replace(f"prefix=/{prefix}", f"prefix={self.prefix}"))
        self.libraries = description.parent.parent
        self.environment = {**os.environ, "PKG_CONFIG_PATH": str(description.parent)}
