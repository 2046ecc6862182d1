"""The cables between hosts: pairs of devices on a bridge, or a relay of our own where they are to be slow and the
kernel cannot delay."""

import collections
import fcntl
import os
import select
import struct
import subprocess
import time

from .errors import ClusterError
from .kernel import PR_SET_TIMERSLACK, system_call

# The kernel's names and numbers.
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x2, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 0x1, 0x2, 0x4

NETWORK = "10.77.0"
BUFFER = 2**20  # bytes that a port of a switch keeps, of what its link cannot carry yet


def batch(tool, lines):
    """Runs many commands of ip or tc at once, which is faster than one at a time."""
    job = subprocess.run([tool, "-batch", "-"], input="\n".join(lines) + "\n", text=True, capture_output=True)
    if job.returncode != 0:
        raise ClusterError(f"{tool} failed: {job.stderr.strip()}")


def has_netem():
    add = subprocess.run(["tc", "qdisc", "add", "dev", "lo", "root", "netem"], capture_output=True)
    if add.returncode == 0:
        batch("tc", ["qdisc delete dev lo root"])
    return add.returncode == 0


def tap(device):
    """Makes a network device whose frames this process reads and writes."""
    try:
        end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        raise ClusterError("--latency needs the kernel module sch_netem, which is not there, or else /dev/net/tun, "
                           f"which cannot be opened: {error.strerror}") from None
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    # Lets TCP hand over up to 64 KiB as one frame, without which Python would be too slow for 1 Gbit/s.
    fcntl.ioctl(end, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)
    return end


def burst(rate):
    """Bytes that may pass at once: what 1 ms carries, and not so few that the kernel is kept busy by it."""
    return max(rate // 8000, 2**14)


def relay(ends, delay, rate):
    """Is a switch between taps: carries each frame after the delay in seconds, and to each tap no more than
    the rate in bit/s, or None."""
    system_call("prctl", PR_SET_TIMERSLACK, 1, 0, 0, 0)
    try:  # Ranks that spin would keep it waiting for milliseconds.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        pass
    buffer = (BUFFER + burst(rate)) * 8 / rate if rate else 0
    homes = {}
    frames = {end: collections.deque() for end in ends}
    free = dict.fromkeys(ends, 0)
    while True:
        due = min((queue[0][0] for queue in frames.values() if queue), default=None)
        wait = None if due is None else max(0, due - time.monotonic())
        readable, _, _ = select.select(ends, [], [], wait)
        now = time.monotonic()
        for source in readable:
            frame = os.read(source, 1 << 17)
            receiver, sender = frame[10:16], frame[16:22]  # after the virtio_net_hdr
            homes[sender] = source
            for target in [homes[receiver]] if receiver in homes else [end for end in ends if end != source]:
                start = max(now + delay, free[target])
                if start > now + delay + buffer:
                    continue  # A switch whose buffer is full loses frames.
                free[target] = start + len(frame) * 8 / rate if rate else start
                frames[target].append((free[target], frame))
        for target, queue in frames.items():
            while queue and queue[0][0] <= now:
                try:
                    os.write(target, queue.popleft()[1])
                except OSError:
                    pass  # The device is not up yet.


def shape(device, options, by_netem):
    """Makes slow what leaves by the device, which is one of the two ends of a host's cable."""
    lines, parent = [], "root"
    if by_netem:
        lines.append(f"qdisc add dev {device} root handle 1: netem delay {options.latency / 2}us limit 100000")
        parent = "parent 1:"
    if options.link:
        lines.append(f"qdisc add dev {device} {parent} tbf rate {options.link}bit"
                     f" burst {burst(options.link)}b limit {BUFFER}b")
    batch("tc", lines)
