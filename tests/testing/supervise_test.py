"""Tests of scripts/supervise: when a command is started again, on which hosts, and what ends that."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import report
from virtual_hosts import CLUSTER, need_hosts

ROOT = pathlib.Path(__file__).resolve().parents[2]
SUPERVISE = str(ROOT / "scripts" / "supervise")
for name in "OMPI_MCA_orte_default_hostfile", "HYDRA_HOST_FILE", "SLURM_JOB_NODELIST", "LOCKSTEP_MPI":
    os.environ.pop(name, None)


class Supervise(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lockstep-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.hosts = self.folder / "hosts"
        self.hosts.mkdir()
        self.probe = ["--probe", f"test -e {self.hosts}/{{host}}"]

    def add_hosts(self, *names):
        for name in names:
            (self.hosts / name).touch()

    def run_job(self, *arguments, **environment):
        return subprocess.run([SUPERVISE, *map(str, arguments)], text=True, capture_output=True, timeout=60,
                              env=os.environ | environment)

    def start(self, *arguments):
        job = subprocess.Popen([SUPERVISE, *map(str, arguments)], text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
        self.addCleanup(job.communicate)
        self.addCleanup(job.kill)
        return job

    def check(self, job, status, output, *said):
        self.assertEqual((job.returncode, job.stdout), (status, output), job.stderr)
        for part in said:
            self.assertIn(part, job.stderr)
        for line in job.stderr.splitlines():
            self.assertTrue(line.startswith("supervise: "), job.stderr)

    def test_a_job_that_ends_well_is_run_once_and_nothing_is_said(self):
        job = self.run_job("--", "echo", "a  b", "{other}")
        self.check(job, 0, "a  b {other}\n")
        self.assertEqual(job.stderr, "")

    def test_a_job_that_fails_is_started_again_with_what_was_asked_for(self):
        script = 'echo "$LOCKSTEP_RESTARTS $@"; test "$LOCKSTEP_RESTARTS" = 2'
        job = self.run_job("--again=--resume 'a b'", "--", "sh", "-c", script, "sh", "x")
        self.check(job, 0, "0 x\n1 x --resume a b\n2 x --resume a b\n", "ended with status 1",
                   "restart 2 of 10", "ended well, after 2 restarts")

    def test_arguments_are_added_where_the_checkpoint_is_there(self):
        checkpoint = self.folder / "checkpoint"
        script = f'echo "$@"; test "$LOCKSTEP_RESTARTS" = 1 && touch {checkpoint}; test "$LOCKSTEP_RESTARTS" = 2'
        job = self.run_job("--again=--resume", "--if", checkpoint, "--", "sh", "-c", script, "sh", "x")
        self.check(job, 0, "x\nx\nx --resume\n")

    def test_restarts_have_a_limit_and_the_last_status_is_told(self):
        self.check(self.run_job("--restarts", 1, "--", "sh", "-c", "echo x; exit 7"), 7, "x\nx\n",
                   "status 7", "giving up after 1 restart")
        self.check(self.run_job("--restarts", 0, "--", "sh", "-c", "kill -9 $$"), 137, "", "status 137",
                   "giving up after 0 restarts")

    def test_a_command_that_cannot_be_run_is_not_started_again(self):
        self.check(self.run_job("--", self.folder / "none"), 1, "", f"{self.folder}/none: No such file")
        self.check(self.run_job("--", "sh", "-c", "none 2>/dev/null"), 127, "", "could not be run")

    def test_the_job_is_told_the_hosts_that_answer(self):
        self.add_hosts("n1", "n3")
        script = 'echo "$@"; cat "$3" "$OMPI_MCA_orte_default_hostfile"'
        job = self.run_job(*self.probe, "--hosts", "n1:2,n2:4,n3", "--",
                           "sh", "-c", script, "sh", "-n{ranks}", "{hosts}", "{hostfile}")
        lines = job.stdout.splitlines()
        self.assertRegex(lines[0], r"^-n3 n1:2,n3:1 /.*/hosts$")
        self.assertEqual(lines[1:], ["n1 slots=2", "n3 slots=1"] * 2)
        self.assertEqual((job.returncode, job.stderr), (0, "supervise: without n2, which does not answer\n"))

    def test_hosts_are_read_from_a_file_as_mpirun_reads_it(self):
        self.add_hosts("n1", "n2")
        file = self.folder / "file"
        file.write_text("# those of today\nn1 slots=2 max_slots=4\n\nn2  slots = 3  # the new one\n")
        for hosts, environment in (["--hosts", file], {}), ([], {"OMPI_MCA_orte_default_hostfile": str(file)}):
            job = self.run_job(*self.probe, *hosts, "--", "echo", "{ranks} {hosts}", **environment)
            self.check(job, 0, "5 n1:2,n2:3\n")

    def test_hosts_are_those_of_the_slurm_allocation(self):
        scontrol = self.folder / "scontrol"
        scontrol.write_text('#!/bin/sh\ntest "$*" = "show hostnames n[1-3]" && printf "n1\\nn2\\nn3\\n"\n')
        scontrol.chmod(0o755)
        script = ("echo {hosts} $SLURM_JOB_NODELIST $SLURM_NODELIST $SLURM_JOB_NUM_NODES $SLURM_NNODES "
                  "$SLURM_NTASKS $SLURM_NPROCS $SLURM_TASKS_PER_NODE")
        for there, told in (["n1", "n2", "n3"], "n1:8,n2:8,n3:4 n1,n2,n3 n1,n2,n3 3 3 20 20 8,8,4\n"), \
                           (["n1", "n3"], "n1:8,n3:4 n1,n3 n1,n3 2 2 12 12 8,4\n"):
            with self.subTest(there=there):
                (self.hosts / "n2").unlink(missing_ok=True)
                self.add_hosts(*there)
                job = self.run_job(*self.probe, "--", "sh", "-c", script, SLURM_JOB_NODELIST="n[1-3]",
                                   SLURM_TASKS_PER_NODE="8(x2),4", PATH=f"{self.folder}:{os.environ['PATH']}")
                self.check(job, 0, told)

    def test_hydra_gets_hosts_in_its_own_form(self):
        self.add_hosts("n1", "n2")
        job = self.run_job(*self.probe, "--hosts", "n1:2,n2", "--", "sh", "-c", 'cat "$HYDRA_HOST_FILE"',
                           LOCKSTEP_MPI="mpich")
        self.check(job, 0, "n1:2\nn2:1\n")

    def test_too_few_ranks_end_it(self):
        self.add_hosts("n1")
        job = self.run_job(*self.probe, "--hosts", "n1:2,n2:2", "--least", 3, "--", "echo", "x")
        self.check(job, 1, "", "n2", "room for 2 ranks", "--least asks for 3")

    def test_a_host_that_stops_answering_ends_the_job_and_the_rest_goes_on(self):
        self.add_hosts("n1", "n2")
        # Neither it nor what it has started reacts to SIGTERM.
        script = f"""trap '' TERM; echo "{{hosts}} $LOCKSTEP_RESTARTS"
                     test "$LOCKSTEP_RESTARTS" = 1 || {{ rm {self.hosts}/n2; sleep 50 & sleep 50; }}"""
        began = time.monotonic()
        job = self.run_job(*self.probe, "--watch", 0.2, "--hosts", "n1,n2:2", "--", "sh", "-c", script)
        self.check(job, 0, "n1:1,n2:2 0\nn1:1 1\n", "n2 does not answer: ending the job", "status 137",
                   "without n2")
        self.assertLess(time.monotonic() - began, 40)

    def test_hosts_that_answer_are_asked_once_at_a_time(self):
        asked = self.folder / "asked"
        job = self.run_job("--probe", f"sh -c 'echo {{host}} >>{asked}'", "--watch", 1, "--hosts", "n1,n2,n3,n4", "--",
                           "sh", "-c", f"until test $(wc -l <{asked}) -ge 8; do sleep 0.02; done; sleep 0.3")
        self.check(job, 0, "")
        self.assertEqual(sorted(asked.read_text().split()), ["n1", "n1", "n2", "n2", "n3", "n3", "n4", "n4"])

    def test_a_host_that_answers_late_is_gone(self):
        job = self.run_job("--probe", "sh -c 'test {host} = n1 || sleep 50'", "--probe-seconds", 0.5,
                           "--hosts", "n1,n2", "--", "echo", "{hosts}")
        self.check(job, 0, "n1:1\n", "without n2")

    def test_signals_go_to_the_job_which_is_not_started_again(self):
        for number, status in (signal.SIGTERM, 5), (signal.SIGINT, 5):
            job = self.start("--", "sh", "-c", "trap 'exit 5' TERM INT; echo x; while :; do sleep 0.1; done")
            self.assertEqual(job.stdout.readline(), "x\n")
            job.send_signal(number)
            self.assertEqual(job.wait(timeout=20), status)
            self.assertIn(f"{number.name} came, and the job ended with status 5", job.stderr.read())

    def test_a_signal_of_the_users_does_not_end_it(self):
        job = self.start("--", "sh", "-c", "trap 'echo usr; exit 0' USR1; echo x; while :; do sleep 0.1; done")
        self.assertEqual(job.stdout.readline(), "x\n")
        job.send_signal(signal.SIGUSR1)
        self.assertEqual((job.wait(timeout=20), job.stdout.read()), (0, "usr\n"))

    def test_the_job_ends_where_its_supervisor_is_killed(self):
        job = self.start("--", "sh", "-c", "trap 'echo told; exit' TERM; echo x; while :; do sleep 0.1; done")
        self.assertEqual(job.stdout.readline(), "x\n")
        job.kill()
        self.assertEqual(job.stdout.read(), "told\n")

    def test_bad_arguments_are_refused_with_what_is_wrong(self):
        for arguments, part in [
                ([], "no COMMAND"), (["--restarts", "-1", "--", "true"], "'-1' is not a whole number from 0 on"),
                (["--watch", "0", "--", "true"], "'0' is not a number of seconds above 0"),
                (["--hosts", "n1:0", "--", "true"], "'n1:0' is no host such as n1, n1:8 or n1 slots=8"),
                (["--hosts", "n1,n2,n1:3", "--", "true"], "listed twice: n1"),
                (["--hosts", ",", "--", "true"], "--hosts names none"),
                (["--hosts", "n1", "--probe", "none {host}", "--", "true"], "'none'"),
                (["--", "mpirun", "-n", "{ranks}"], "list them by --hosts")]:
            with self.subTest(arguments=arguments):
                job = self.run_job(*arguments)
                self.assertNotEqual(job.returncode, 0)
                self.assertEqual(job.stdout, "")
                self.assertIn(part, job.stderr)
                self.assertNotIn("Traceback", job.stderr)

    def test_the_help_fits_a_terminal_and_has_an_example(self):
        job = self.run_job("--help", COLUMNS="80")
        self.assertEqual((job.returncode, job.stderr), (0, ""))
        self.assertLessEqual(max(map(len, job.stdout.splitlines())), 80)
        self.assertIn("mpirun -n {ranks} --host {hosts}", job.stdout)

    def test_hosts_of_a_virtual_cluster_are_asked_by_their_agent(self):
        need_hosts()
        for event in "kill", "cut", "pause":
            with self.subTest(event=event):
                script = f"""echo "{{hosts}}"
                             test "$LOCKSTEP_RESTARTS" = 1 || {{ touch {self.folder}/{event}; sleep 50; }}"""
                job = subprocess.Popen(
                    [CLUSTER, "run", "-r", "1,2", "--head", "--", SUPERVISE, "--watch", "0.2", "--", "sh", "-c", script],
                    text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                self.addCleanup(job.kill)
                while not (self.folder / event).exists() and job.poll() is None:
                    time.sleep(0.05)
                number = str(job.pid)
                subprocess.run([CLUSTER, event, "h0", "--cluster", number], check=True, timeout=20)
                output, errors = job.communicate(timeout=60)
                self.assertEqual((job.returncode, output), (0, "h0:1,h1:2\nh1:2\n"), errors)
                self.assertIn("h0 does not answer: ending the job", errors)


report.main()
