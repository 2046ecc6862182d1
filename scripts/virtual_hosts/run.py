"""Makes the hosts, each of which is the namespaces of a process, and runs a program by mpirun on them."""

import os
import pathlib
import select
import signal
import socket
import sys

from . import kernel, slurm
from .errors import NEEDS, ClusterError, complain
from .kernel import system_call
from .network import NETWORK, batch, has_netem, relay, shape, tap

LAUNCH = str(pathlib.Path(__file__).resolve().parents[1] / "launch")
SI_KERNEL = 0x80
FORWARDED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
WATCHED = FORWARDED | {signal.SIGCHLD}

# Memory that only one host sees, where it is in nobody's way and needs no folder of the machine's.
PRIVATE = "/dev/shm/.cluster"
# Reaches no host that one of the network would not reach: one whose link is down, or that is paused.
AGENT = f"""#!/bin/sh
pid=$(cat {PRIVATE}/"$1") || exit
if grep -q '^State:.T' "/proc/$pid/status" || ! nsenter --target "$pid" --net ip link show up dev eth0 | grep -q .; then
  echo "$1 does not answer" >&2
  exit 255
fi
shift
exec nsenter --target "$pid" --net --mount --uts --ipc --root --wd sh -c "$*"
"""
# The names of processes by which they are found: of the first one in the namespaces, and of a host's.
FIRST, HOST = "cluster", "cluster "


def write(name, text, mode=0o644):
    file = pathlib.Path(PRIVATE, name)
    file.write_text(text)
    file.chmod(mode)


def mount_memory(limit):
    """Gives the host its own /dev/shm, and PRIVATE, which does not count towards the limit."""
    system_call("mount", "shm", "/dev/shm", "tmpfs", 0, f"mode=1777,size={limit}" if limit else "mode=1777")
    os.mkdir(PRIVATE)
    system_call("mount", "private", PRIVATE, "tmpfs", 0, "mode=755")
    # Open MPI looks for it on the hosts as well, which start nothing by it.
    write("agent", AGENT, 0o755)


def be_host(number, name, options, cabling, key, ready):
    """Becomes the process that holds a host's namespaces."""
    system_call("unshare", kernel.CLONE_NEWNET | kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC)
    system_call("prctl", kernel.PR_SET_NAME, HOST + name, 0, 0, 0)
    socket.sethostname(name)
    mount_memory(options.shm)
    if options.slurm:
        slurm.prepare(write, key, PRIVATE, options.ranks)
    taps, lines = [], []
    if cabling == "relay":
        taps.append(tap("eth0"))
    else:
        lines.append(f"link add eth0 type veth peer name {name} netns 1")
    batch("ip", [*lines, f"address add {NETWORK}.{number}/24 dev eth0", "link set lo up", "link set eth0 up"])
    shape("eth0", options, cabling == "netem")
    socket.send_fds(ready, [b"."], taps)
    ready.close()
    while True:
        signal.pause()


def fork(action, *values):
    """Runs an action in a new process, which ends with the status that it returns."""
    pid = os.fork()
    if pid != 0:
        return pid
    status = 1
    try:
        status = action(*values)
    except PermissionError as error:
        complain(f"{error.strerror}. {NEEDS}")
    except ClusterError as error:
        complain(error)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def mount_names(text):
    """Has /etc/hosts say something else here, also where there is none."""
    write("etc_hosts", text)
    if not os.path.exists("/etc/hosts"):
        for name in "upper", "work":
            os.mkdir(f"{PRIVATE}/{name}")
        system_call("mount", "etc", "/etc", "overlay", 0,
                    f"lowerdir=/etc,upperdir={PRIVATE}/upper,workdir={PRIVATE}/work")
        pathlib.Path("/etc/hosts").touch()
    system_call("mount", f"{PRIVATE}/etc_hosts", "/etc/hosts", None, kernel.MS_BIND, None)


def make_hosts(options):
    kernel.keep_mounts()
    system_call("mount", "proc", "/proc", "proc", 0, None)
    mount_memory(None)
    if options.mpi == "mpich":
        # scripts/launch looks for the ranks two generations below mpirun, with no shell in between.
        write("agent", AGENT.replace("$*", "exec $*"), 0o755)
    # A name of its own, lest mpirun finds that it is on one of the hosts.
    socket.sethostname("head")
    names = [f"h{number}" for number in range(options.hosts)]
    addresses = [f"{NETWORK}.{number} {name}\n" for number, name in enumerate([*names, "head"], 1)]
    mount_names("127.0.0.1 localhost\n" + "".join(addresses))
    cabling = "veth" if not options.latency else "netem" if has_netem() else "relay"
    taps = []
    if cabling == "relay":
        taps.append(tap("lan"))
    batch("ip", ["link set lo up", *(["link add lan type bridge"] if not taps else []), "link set lan up",
                 f"address add {NETWORK}.{options.hosts + 1}/24 dev lan"])

    key = os.urandom(64).hex()
    ready, ready_end = socket.socketpair()
    for number, name in enumerate(names, 1):
        write(name, str(fork(be_host, number, name, options, cabling, key, ready_end)))
    ready_end.close()
    for _ in names:
        answer, fds, _, _ = socket.recv_fds(ready, 1, 1)
        if not answer:
            return False  # A host has said what is wrong.
        taps += fds
    if cabling == "relay":
        fork(relay, taps, options.latency / 1e6, options.link)
    else:
        batch("ip", [line for name in names for line in (f"link set {name} master lan", f"link set {name} up")])
        for name in names:
            shape(name, options, cabling == "netem")
    if options.slurm:
        slurm.prepare(write, key, PRIVATE, options.ranks)
    write("slots", "".join(f"{name} slots={ranks}\n" for name, ranks in zip(names, options.ranks)))
    write("hosts", "".join(f"{name}:{ranks}\n" for name, ranks in zip(names, options.ranks)))
    return True


def settings(options):
    """What mpirun needs to know beyond what scripts/launch tells it."""
    network = f"{NETWORK}.0/24"
    transport = {"orte_tmpdir_base": PRIVATE, "oob_tcp_if_include": network, "btl_tcp_if_include": network,
                 "pml": "ob1", "btl": "tcp,vader,self"}
    if options.slurm:  # which tells it the hosts
        return {f"OMPI_MCA_{name}": value for name, value in transport.items()} | slurm.settings(PRIVATE)
    if options.mpi == "mpich":
        # UCX has all messages, within a host as well.
        return {"LOCKSTEP_MPI": "mpich", "HYDRA_LAUNCHER": "rsh", "HYDRA_LAUNCHER_EXEC": f"{PRIVATE}/agent",
                "HYDRA_RMK": "user", "HYDRA_HOST_FILE": f"{PRIVATE}/hosts",
                "UCX_TLS": "tcp,self", "UCX_NET_DEVICES": "eth0"}
    hosts = {"plm": "rsh", "plm_rsh_agent": f"{PRIVATE}/agent", "plm_rsh_no_tree_spawn": "1", "ras": "^slurm",
             "orte_default_hostfile": f"{PRIVATE}/slots", "rmaps_base_mapping_policy": options.map_by}
    return {f"OMPI_MCA_{name}": value for name, value in (hosts | transport).items()}


def supervise(pid):
    """Passes signals on to a child process until it ends, and returns its status as a shell would."""
    while True:
        received = signal.sigwaitinfo(WATCHED)
        if received.si_signo != signal.SIGCHLD:
            # Those of a terminal reach all of its processes anyway.
            if received.si_code != SI_KERNEL:
                os.kill(pid, received.si_signo)
            continue
        ended = -1
        while ended not in (0, pid):
            ended, status = os.waitpid(-1, os.WNOHANG)
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def be_first(options, leash):
    """Is the first process of the namespaces."""
    system_call("prctl", kernel.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if select.select([leash], [], [], 0)[0]:
        return 1  # The parent was killed before it could take this process along.
    system_call("prctl", kernel.PR_SET_NAME, FIRST, 0, 0, 0)
    if not make_hosts(options):
        return 1
    environment = os.environ | settings(options)
    if options.slurm:
        os.environ |= slurm.settings(PRIVATE)
        slurm.start(PRIVATE, f"{PRIVATE}/agent", [f"h{number}" for number in range(options.hosts)])
    command = options.program
    if not options.head:
        command = [LAUNCH, "-n", str(sum(options.ranks)), *command]
    try:
        program = os.posix_spawnp(command[0], command, environment, setsigmask=[],
                                  setsigdef=[signal.SIGPIPE, signal.SIGXFSZ])
    except OSError as error:
        raise ClusterError(f"{command[0]}: {error.strerror}") from None
    return supervise(program)


def run(options):
    """Runs the program, and returns the exit status of mpirun."""
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    try:
        kernel.leave_machine()
    except OSError as error:
        raise ClusterError(f"{error.strerror}. {NEEDS}") from None
    leash, leash_end = os.pipe()
    def first():
        os.close(leash_end)
        return be_first(options, leash)
    return supervise(fork(first))
