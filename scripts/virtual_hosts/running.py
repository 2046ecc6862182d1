"""Finds the clusters that are running on this machine, and does things to their hosts."""

import os
import pathlib
import re
import signal
import subprocess
import time

from .errors import ClusterError
from .run import FIRST, HOST


class Cluster:
    """What `scripts/cluster run` has started, by the number of its process."""

    def __init__(self, number):
        self.number = number
        self.hosts = {}  # The process that holds the namespaces of each, by its name.

    def names(self):
        return sorted(self.hosts, key=lambda host: int(host[1:]))

    def command(self):
        words = pathlib.Path("/proc", str(self.number), "cmdline").read_bytes().decode(errors="replace").split("\0")
        return " ".join(words[words.index("run"):]).strip() if "run" in words else "?"


def read(process, file):
    """Of /proc; nothing where the process has ended."""
    try:
        return pathlib.Path("/proc", str(process), file).read_text()
    except OSError:
        return ""


def parent(process):
    match = re.search(r"^PPid:\s*(\d+)$", read(process, "status"), re.MULTILINE)
    return int(match[1]) if match else 0


def network(process):
    try:
        return os.readlink(f"/proc/{process}/ns/net")
    except OSError:
        return None  # It has ended, or belongs to somebody else.


def all_processes():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def clusters():
    found = {}
    for process in all_processes():
        name = read(process, "comm").rstrip("\n")
        first = parent(process)
        # Those of others cannot be looked into.
        if not name.startswith(HOST) or read(first, "comm") != FIRST + "\n" or network(process) is None:
            continue
        number = parent(first)
        found.setdefault(number, Cluster(number)).hosts[name.removeprefix(HOST)] = process
    return [found[number] for number in sorted(found)]


def find_host(name, number=None):
    """The process that holds the namespaces of a host."""
    running = clusters()
    if not running:
        raise ClusterError("no cluster is running: start one by scripts/cluster run")
    numbers = ", ".join(str(cluster.number) for cluster in running)
    if number is not None:
        running = [cluster for cluster in running if cluster.number == number]
        if not running:
            raise ClusterError(f"no cluster {number} is running, but {numbers}")
    if len(running) > 1:
        raise ClusterError(f"several clusters are running: choose one of {numbers} by --cluster")
    hosts = running[0].hosts
    if name not in hosts:
        names = ", ".join(running[0].names())
        raise ClusterError(f"cluster {running[0].number} has no host '{name}', but {names}")
    return hosts[name]


def enter(holder, *namespaces):
    """The beginning of a command that runs what follows in these namespaces of a host."""
    command = ["nsenter", "--target", str(holder), *namespaces]
    if os.readlink(f"/proc/{holder}/ns/user") != os.readlink("/proc/self/ns/user"):
        command[3:3] = ["--user", "--preserve-credentials"]
    return command


def shell(holder, command):
    """Becomes a command on the host, or an interactive shell."""
    command = command or [os.environ.get("SHELL", "/bin/sh")]
    os.execvp("nsenter", [*enter(holder, "--net", "--mount", "--uts", "--ipc", "--pid", "--root", "--wd"), *command])


def set_link(holder, state):
    job = subprocess.run([*enter(holder, "--net"), "ip", "link", "set", "eth0", state], text=True, capture_output=True)
    if job.returncode != 0:
        raise ClusterError(f"ip failed: {job.stderr.strip()}")


def processes_of(holder):
    space = network(holder)
    return [process for process in all_processes() if process != holder and network(process) == space]


def has_ended_or_stopped(process):
    match = re.search(r"^State:\s*(\w)", read(process, "status"), re.MULTILINE)
    return match is None or match[1] in "TtXZ"


def send(process, number):
    try:
        os.kill(process, number)
    except ProcessLookupError:
        pass


def halt(holder, number):
    """Sends a signal that ends or stops to all processes of a host, and to those that they start meanwhile."""
    deadline = time.monotonic() + 10
    while going := [process for process in processes_of(holder) if not has_ended_or_stopped(process)]:
        if time.monotonic() > deadline:
            raise ClusterError(f"processes {', '.join(map(str, going))} of the host do not react to signal {number}")
        for process in going:
            send(process, number)
        time.sleep(0.01)


def kill(holder):
    """As a host without power: nobody hears that its processes have ended."""
    set_link(holder, "down")
    halt(holder, signal.SIGKILL)
    os.kill(holder, signal.SIGKILL)


def cut(holder):
    set_link(holder, "down")


def mend(holder):
    set_link(holder, "up")


def pause(holder):
    halt(holder, signal.SIGSTOP)
    os.kill(holder, signal.SIGSTOP)  # by which its agent knows


def resume(holder):
    for process in [holder, *processes_of(holder)]:
        send(process, signal.SIGCONT)
