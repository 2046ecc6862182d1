"""A SLURM of the hosts: its controller is beside them, and a slurmd is on each."""

import os
import subprocess
import time

from .errors import ClusterError

PACKAGES = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client"}
# Jobs of the partition urgent take the nodes of others, which hear of it by the signal they have asked for, have a
# minute to save, and go back into the queue, where they wait for cred_expire seconds.
CONFIGURATION = """\
ClusterName=virtual
SlurmctldHost=head
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
SlurmdTimeout=10
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/linear
SchedulerParameters=bf_interval=1,sched_interval=1
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
{nodes}
PartitionName=normal Nodes=ALL Default=YES PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""
# Nothing here uses cgroups, and not every machine has them; but slurmd wants a version.
CGROUPS = "CgroupPlugin=cgroup/v1\nCgroupMountpoint={folder}/cgroup\n"
MUNGED = ("munged --force --key-file={folder}/munge.key --socket={folder}/munge.socket --pid-file={folder}/munge.pid "
          "--log-file={folder}/munge.log --seed-file={folder}/munge.seed")


def prepare(write, key, folder, ranks):
    """Writes what the daemons read: the same on the controller and on each host, by a function write(name, text)."""
    nodes = "\n".join(f"NodeName=h{host} CPUs={count}" for host, count in enumerate(ranks))
    write("slurm.conf", CONFIGURATION.format(folder=folder, nodes=nodes))
    write("cgroup.conf", CGROUPS.format(folder=folder))
    write("munge.key", key, 0o600)
    os.mkdir(f"{folder}/spool")


def run(command, log=None):
    job = subprocess.run(command, text=True, capture_output=True)
    if job.returncode != 0:
        text = job.stderr.strip()
        if log and os.path.exists(log):
            with open(log) as lines:
                text += "\n" + "".join(lines.readlines()[-5:])
        raise ClusterError(f"{command[0]} failed: {text.strip()}")
    return job.stdout


def start(folder, agent, names):
    """Starts the daemons, and waits until all nodes are there."""
    os.mkdir(f"{folder}/state")
    run(MUNGED.format(folder=folder).split(), f"{folder}/munge.log")
    run(["slurmctld", "-f", f"{folder}/slurm.conf"], f"{folder}/slurmctld.log")
    daemons = f"{MUNGED.format(folder=folder)} && slurmd -f {folder}/slurm.conf -N "
    for name in names:
        run([agent, name, f"{{ {daemons}{name}; }} || {{ tail -n 5 {folder}/*.log >&2; false; }}"])
    deadline = time.monotonic() + 30
    while True:
        states = run(["sinfo", "--noheader", "--Node", "--partition=normal", "--format=%T"]).split()
        if states == ["idle"] * len(names):
            return
        if time.monotonic() > deadline:
            raise ClusterError(f"nodes of SLURM are not idle, but {', '.join(states)}")
        time.sleep(0.1)


def settings(folder):
    return {"SLURM_CONF": f"{folder}/slurm.conf"}
