"""Calls of the Linux kernel that Python has no name for."""

import ctypes
import errno
import os
import pathlib

# The kernel's names and numbers.
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_TIMERSLACK = 1, 15, 29

libc = ctypes.CDLL(None, use_errno=True)


def system_call(name, *values):
    if getattr(libc, name)(*(value.encode() if isinstance(value, str) else value for value in values)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def leave_machine():
    """Moves this process into namespaces of its own. Its next child is the first process there, and when
    that one ends the kernel ends and removes whatever is left in them."""
    namespaces = CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        try:
            return system_call("unshare", namespaces)
        except PermissionError:
            pass  # Root of a container without that right may still be allowed what users are.
    system_call("unshare", namespaces | CLONE_NEWUSER)
    for file, text in ("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1"):
        pathlib.Path("/proc/self", file).write_text(text)


def keep_mounts():
    """Keeps what is mounted from here on within this process's namespace."""
    try:
        return system_call("mount", None, "/", None, MS_REC | MS_PRIVATE, None)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    # The root of a chroot is no mount, so it is moved to one: a copy of all, below /proc, which is a mount.
    folder = os.getcwd()
    system_call("mount", None, "/proc", None, MS_PRIVATE, None)
    system_call("mount", "roots", "/proc", "tmpfs", 0, "mode=755")
    os.mkdir("/proc/root")
    system_call("mount", "/", "/proc/root", None, MS_BIND | MS_REC, None)
    system_call("mount", None, "/proc/root", None, MS_REC | MS_PRIVATE, None)
    os.chroot("/proc/root")
    os.chdir(folder)
