"""Tests of scripts/cluster: what the hosts share and what they do not, and that nothing is left of them."""

import collections
import contextlib
import glob
import os
import pathlib
import re
import select
import signal
import subprocess
import sys
import threading
import time
import unittest
import uuid

import report
from virtual_hosts import CLUSTER, need_hosts

# Of the tests that are asked for, which are none of those that it starts.
os.environ.pop("LOCKSTEP_TEST_ONLY", None)
PROGRAM = sys.argv.pop()
MPICH = os.environ.get("LOCKSTEP_MPI") == "mpich"
MPIRUN, DAEMON, RANK = ("mpiexec.hydra", "hydra_pmi_proxy", "PMI_RANK") if MPICH else \
    ("mpirun", "orted", "OMPI_COMM_WORLD_RANK")
WHERE = f'echo "$(hostname) ${RANK}"'
# Answers lines until the input ends.
ANSWER = 'while read -r line; do echo "$(hostname) $line"; done'
# mpirun and its child both put the child into a group of its own, and who comes second may warn.
SECOND_SETPGID = re.compile(r"^\[.*\] plm:rsh: Warning: setpgid\(.*\n", re.MULTILINE)


def run(*arguments, **options):
    job = subprocess.run([CLUSTER, "run", *arguments], text=True, capture_output=True, timeout=120, **options)
    job.stderr = SECOND_SETPGID.sub("", job.stderr)
    return job


def namespace(pid):
    return os.readlink(f"/proc/{pid}/ns/pid")


def processes(token):
    """The names by pid of all processes of the cluster whose command has the token."""
    names, spaces = {}, {}
    tagged = set()
    for folder in glob.glob("/proc/[0-9]*"):
        pid = int(folder.rpartition("/")[2])
        with contextlib.suppress(OSError):
            spaces[pid] = namespace(pid)
            names[pid] = pathlib.Path(folder, "comm").read_text().strip()
            if token in pathlib.Path(folder, "cmdline").read_text():
                tagged.add(pid)
    inside = {spaces[pid] for pid in tagged} - {namespace("self")}
    return {pid: name for pid, name in names.items() if pid in tagged or spaces[pid] in inside}


def leftovers():
    """What the machine has of hosts with the names of ours."""
    return sorted(glob.glob("/tmp/*.h[0-9]*") + glob.glob("/tmp/*.head.*") + glob.glob("/dev/shm/*.h[0-9]*") +
                  glob.glob("/dev/shm/.cluster") + glob.glob("/run/netns/h[0-9]*") +
                  glob.glob("/sys/class/net/h[0-9]*") + glob.glob("/sys/class/net/lan"))


class Arguments(unittest.TestCase):
    def test_bad_arguments_are_refused_with_what_is_wrong(self):
        for arguments, message in [
                ("-H 0 true", "'0' is not a number from 1 to 250"),
                ("-H 2 -r 0 true", "'0' is not a number from 1 to 250"),
                ("-H 2 -r 1,x true", "'x' is not a number from 1 to 250"),
                ("-H 2 -r 1,2,3 true", "-r lists 3 hosts, and -H says 2"),
                ("-r 2 true", "-H is needed"),
                ("-H 2", "no PROGRAM is given"),
                ("-H 2 --link fast true", "'fast' is no rate such as 1gbit"),
                ("-H 2 --link 0gbit true", "'0gbit' is no rate such as 1gbit"),
                ("-H 2 --latency 1 true", "'1' is no time such as 1ms"),
                ("-H 2 --shm 64mb true", "'64mb' is no size such as 64m"),
                ("-H 2 --map-by rack true", "invalid choice: 'rack'"),
                ("-H 2 --nodes true", "unrecognized arguments: --nodes")]:
            with self.subTest(arguments):
                job = run(*arguments.split())
                self.assertEqual((job.returncode, job.stdout), (2, ""))
                self.assertIn(message, job.stderr)

    def test_a_tool_that_is_missing_is_named_with_its_package(self):
        job = subprocess.run([sys.executable, CLUSTER, "run", "-H", "2", "true"], text=True, capture_output=True,
                             timeout=60, env={"PATH": "/nonexistent"})
        self.assertEqual(job.returncode, 1)
        self.assertIn("ip (Debian package iproute2)", job.stderr)
        self.assertIn("mpirun (Debian package openmpi-bin)", job.stderr)

    def test_the_help_fits_a_terminal_and_has_an_example(self):
        for command in ["--help"], ["run", "--help"]:
            text = subprocess.run([CLUSTER, *command], text=True, capture_output=True, timeout=60,
                                  env={**os.environ, "COLUMNS": "80"}).stdout
            self.assertIn("scripts/cluster run -H 2 -r 2", text)
            self.assertLessEqual(max(map(len, text.splitlines())), 80)


class Hosts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        need_hosts()

    def setUp(self):
        self.before = leftovers()

    def output(self, *arguments, **options):
        job = run(*arguments, **options)
        self.assertEqual((job.returncode, job.stderr), (0, ""), job.stdout)
        return job.stdout

    def ranks_by_host(self, *arguments):
        hosts = collections.defaultdict(list)
        for line in sorted(self.output(*arguments, "--", "sh", "-c", WHERE).splitlines()):
            host, rank = line.split()
            hosts[host].append(int(rank))
        return dict(hosts)

    @contextlib.contextmanager
    def started(self, script, *arguments):
        """A cluster of two ranks that run a shell script, when both have said that they started."""
        self.token = f"lockstep-{uuid.uuid4()}"
        command = [CLUSTER, "run", "-H", "2", *arguments, "--", "sh", "-c", f"{script}; :", self.token]
        with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as job:
            # It may hang, where mpirun does not reach a host.
            guard = threading.Timer(60, job.kill)
            guard.start()
            try:
                lines = []  # mpirun may make one of what two ranks say
                while "".join(lines).count("started") < 2 and "" not in lines:
                    lines.append(job.stdout.readline())
                guard.cancel()
                self.assertNotIn("", lines, "" if job.poll() is None else job.stderr.read())
                names = list(processes(self.token).values())
                self.assertIn(MPIRUN, names)
                # A daemon of MPICH ends with the ranks of its host.
                self.assertIn(names.count(DAEMON), (1, 2) if MPICH else (2,))
                yield job
            finally:
                guard.cancel()
                job.kill()

    @staticmethod
    def ask(*arguments):
        return subprocess.run([CLUSTER, *arguments], text=True, capture_output=True, timeout=60)

    def tell(self, job, *arguments):
        """What a command says of the cluster of a job."""
        which = ["--cluster", str(job.pid)] if arguments[1:] else []
        answer = self.ask(arguments[0], *which, *arguments[1:])
        self.assertEqual((answer.returncode, answer.stderr), (0, ""), arguments)
        return answer.stdout

    def assert_nothing_is_left(self, patience=0):
        deadline = time.monotonic() + patience
        while (left := processes(self.token)) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual(left, {})
        self.assertEqual(leftovers(), self.before)

    def test_ranks_fill_host_after_host(self):
        self.assertEqual(self.ranks_by_host("-H", "2", "-r", "2"), {"h0": [0, 1], "h1": [2, 3]})

    def test_ranks_go_to_hosts_in_turns_by_node(self):
        if MPICH:
            job = run("-H", "2", "--map-by", "node", "true")
            self.assertEqual(job.returncode, 2)
            return self.assertIn("--map-by node needs a program of Open MPI", job.stderr)
        self.assertEqual(self.ranks_by_host("-H", "2", "-r", "2", "--map-by", "node"), {"h0": [0, 2], "h1": [1, 3]})
        self.assertEqual(self.ranks_by_host("-H", "2", "-r", "1,2", "--map-by", "node"), {"h0": [0], "h1": [1, 2]})

    def test_hosts_may_have_different_numbers_of_ranks(self):
        self.assertEqual(self.ranks_by_host("-r", "3,1"), {"h0": [0, 1, 2], "h1": [3]})

    def test_a_host_has_its_own_shared_memory_of_the_given_size(self):
        script = f"touch /dev/shm/$(hostname).${RANK}; sleep 0.5; " \
                 "echo $(hostname) $(df -k --output=size /dev/shm | tail -1) $(ls /dev/shm)"
        lines = self.output("-H", "2", "-r", "2", "--shm", "64m", "--", "sh", "-c", script).splitlines()
        self.assertEqual(sorted(lines), ["h0 65536 h0.0 h0.1"] * 2 + ["h1 65536 h1.2 h1.3"] * 2)

    def test_hosts_know_each_other_by_name(self):
        script = "getent hosts h0 h1 | tr -s ' '"
        lines = self.output("-H", "2", "--", "sh", "-c", script).splitlines()
        self.assertEqual(sorted(lines), ["10.77.0.1 h0"] * 2 + ["10.77.0.2 h1"] * 2)

    def test_all_ranks_have_the_callers_environment_and_folder(self):
        here = os.path.realpath("/usr")
        self.assertEqual(self.output("-H", "2", "--", "sh", "-c", 'echo "$LOCKSTEP_X $(pwd)"', cwd=here,
                                     env={**os.environ, "LOCKSTEP_X": "a b=c"}), f"a b=c {here}\n" * 2)

    def test_passes_arguments_on_as_they_are(self):
        self.assertEqual(self.output("-H", "1", "--", "printf", "%s|", "a b", "$HOME", "--", "-H", "'"),
                         "a b|$HOME|--|-H|'|")

    def test_the_exit_status_is_that_of_the_program(self):
        job = run("-H", "2", "--", "sh", "-c", "exit 7")
        self.assertEqual(job.returncode, 7)

    def test_a_rank_that_is_killed_ends_the_job(self):
        script = f"[ ${RANK} = 0 ] && sleep 600; kill -9 $$"
        self.assertEqual(run("-H", "2", "--", "sh", "-c", script).returncode, 128 + 9)

    def test_stdout_and_stderr_stay_apart(self):
        job = run("-H", "1", "--", "sh", "-c", "echo out; echo err >&2")
        self.assertEqual((job.returncode, job.stdout, job.stderr), (0, "out\n", "err\n"))

    def test_rank_0_answers_lines_on_stdin_while_two_clusters_run_side_by_side(self):
        command = [CLUSTER, "run", "-H", "2", "--", "sh", "-c", ANSWER]
        with contextlib.ExitStack() as stack:
            jobs = [stack.enter_context(subprocess.Popen(command, text=True, stdin=subprocess.PIPE,
                                                         stdout=subprocess.PIPE)) for _ in range(2)]
            for line in "one", "two":
                for number, job in enumerate(jobs):
                    print(line, number, file=job.stdin, flush=True)
                for number, job in enumerate(jobs):
                    self.assertEqual(job.stdout.readline(), f"h0 {line} {number}\n")
            for job in jobs:
                job.stdin.close()
                self.assertEqual(job.wait(60), 0)

    def test_messages_pass_between_hosts(self):
        output = self.output("-H", "2", "--", PROGRAM, "--gtest_filter=Fixture.passes*")
        self.assertTrue(output.endswith("2 passed, 0 failed, 0 skipped\n"), output)

    def test_a_link_has_the_rate_and_carries_the_traffic(self):
        output = self.output("-H", "2", "--link", "100mbit", "--", "tc", "-s", "qdisc", "show", "dev", "eth0")
        self.assertEqual(output.count("tbf"), 2, output)
        self.assertEqual(len(re.findall("rate 100Mbit", output)), 2, output)
        self.assertTrue(all(int(sent) > 0 for sent in re.findall(r"Sent (\d+) bytes", output)), output)

    def test_a_round_trip_takes_twice_the_latency(self):
        script = f"""
import os, socket, time
if os.environ["{RANK}"] == "1":
    with socket.create_server(("", 5000)) as server:
        for _ in range(2):
            server.accept()
else:
    trips = 0
    while trips < 2:  # The first one includes the search for the host.
        start = time.monotonic()
        try:
            socket.create_connection(("h1", 5000), timeout=60)
            trips += 1
        except ConnectionRefusedError:
            pass
    print(time.monotonic() - start)
"""
        need_hosts("--latency", "1ms")
        for link in [], ["--link", "100mbit"]:
            output = self.output("-H", "2", "--latency", "20ms", *link, "--", sys.executable, "-c", script)
            self.assertGreaterEqual(float(output), 0.04)

    def test_nothing_is_left_after_the_end(self):
        with self.started("echo started; read -r line") as job:
            job.stdin.close()
            self.assertEqual(job.wait(60), 0)
            self.assert_nothing_is_left()

    def test_nothing_is_left_after_an_interrupt_or_a_request_to_end(self):
        for number in signal.SIGINT, signal.SIGTERM:
            with self.subTest(number), self.started("echo started; sleep 600") as job:
                job.send_signal(number)
                self.assertNotEqual(job.wait(60), 0)
                self.assert_nothing_is_left()

    def test_nothing_is_left_when_the_script_is_killed(self):
        for number in range(2):
            with self.subTest(number), self.started("trap '' TERM INT; echo started; sleep 600") as job:
                job.kill()
                job.wait(60)
                self.assert_nothing_is_left(patience=30)

    def test_nothing_is_left_when_mpirun_is_killed(self):
        with self.started("echo started; sleep 600") as job:
            mpirun, = [pid for pid, name in processes(self.token).items() if name == MPIRUN]
            os.kill(mpirun, signal.SIGKILL)
            self.assertEqual(job.wait(60), 128 + 9)
            self.assert_nothing_is_left()

    def test_nothing_is_left_of_a_slow_network(self):
        need_hosts("--latency", "1ms")
        with self.started("echo started; sleep 600", "--link", "100mbit", "--latency", "1ms") as job:
            job.kill()
            job.wait(60)
            self.assert_nothing_is_left(patience=30)

    def test_a_shell_of_a_host_has_its_name_network_and_memory(self):
        with self.started("touch /dev/shm/$(hostname).file; echo started; read -r line") as job:
            for host, address in ("h0", "10.77.0.1"), ("h1", "10.77.0.2"):
                script = f"hostname; ls /dev/shm; ip -br address show eth0 | grep -o {address}; pwd"
                self.assertEqual(self.tell(job, "shell", host, "--", "sh", "-c", script),
                                 f"{host}\n{host}.file\n{address}\n{os.getcwd()}\n")
            job.stdin.close()
            self.assertEqual(job.wait(60), 0)
            self.assert_nothing_is_left()

    def test_lists_what_is_running(self):
        with self.started("echo started; read -r line") as job:
            self.assertRegex(self.tell(job, "list"), rf"(?m)^{job.pid}: h0 h1: run -H 2 -- sh -c echo started; read")

    # Each rank prints its number whenever it hears of the other one, which is ten times in a second.
    echo = f"""
import os, socket, time
own = int(os.environ["{RANK}"])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
    link.bind(("", 5000))
    link.settimeout(0.1)
    print("started", flush=True)
    while True:
        try:
            link.sendto(b"x", (f"h{{1 - own}}", 5000))
        except OSError:
            pass
        try:
            link.recv(1)
            print(own, flush=True)
        except OSError:
            pass
        time.sleep(0.1)
"""

    def heard(self, job, seconds):
        """The ranks that have heard of the other one within so many seconds."""
        deadline, ranks = time.monotonic() + seconds, set()
        while (left := deadline - time.monotonic()) > 0:
            if select.select([job.stdout], [], [], left)[0]:
                ranks |= {"0", "1"} & set(os.read(job.stdout.fileno(), 1 << 16).decode())
        return ranks

    def assert_silence(self, job):
        self.heard(job, 0.5)  # what was on its way
        self.assertEqual(self.heard(job, 1), set())

    @contextlib.contextmanager
    def talking(self, *arguments):
        script = f"exec {sys.executable} -c '{self.echo.replace(chr(39), chr(34))}'"
        with self.started(script, *arguments) as job:
            self.assertEqual(self.heard(job, 2), {"0", "1"})
            yield job
            job.kill()
            job.wait(60)
            self.assert_nothing_is_left(patience=30)

    def check_cut(self, *arguments):
        with self.talking(*arguments) as job:
            self.tell(job, "cut", "h1")
            self.assert_silence(job)
            self.tell(job, "mend", "h1")
            self.assertEqual(self.heard(job, 5), {"0", "1"})

    def test_a_host_that_is_cut_off_hears_nobody_until_it_is_mended(self):
        self.check_cut()

    def test_a_host_with_a_slow_link_is_cut_off_as_well(self):
        need_hosts("--latency", "1ms")
        self.check_cut("--latency", "1ms")

    def test_a_paused_host_does_nothing_until_it_is_resumed(self):
        with self.talking() as job:
            self.tell(job, "pause", "h0")
            self.assert_silence(job)
            self.tell(job, "resume", "h0")
            self.assertEqual(self.heard(job, 5), {"0", "1"})

    def test_a_host_that_is_killed_has_no_processes_and_no_answer(self):
        with self.talking() as job:
            self.tell(job, "kill", "h1")
            self.assert_silence(job)
            self.assertIsNone(job.poll())  # nobody has told mpirun
            self.assertIn(f"{job.pid}: h0: ", self.tell(job, "list"))

    def test_commands_want_a_host_that_there_is(self):
        answer = self.ask("cut", "h0", "--cluster", "1")
        self.assertEqual(answer.returncode, 1)
        self.assertRegex(answer.stderr, r"^scripts/cluster: no cluster (is running|1 is running, but )")
        with self.started("echo started; read -r line") as one, self.started("echo started; read -r line") as other:
            for arguments, message in [
                    (["h2", "--cluster", str(one.pid)], f"cluster {one.pid} has no host 'h2', but h0, h1"),
                    (["h0"], "several clusters are running: choose one of ")]:
                answer = self.ask("kill", *arguments)
                self.assertEqual((answer.returncode, answer.stdout), (1, ""))
                self.assertIn(message, answer.stderr)
            self.assertEqual((one.poll(), other.poll()), (None, None))

    def test_passes_user_signals_to_the_ranks(self):
        with self.started("trap 'echo told; exit 3' USR1; echo started; while :; do sleep 0.1; done") as job:
            job.send_signal(signal.SIGUSR1)
            self.assertIn("told", job.communicate(timeout=60)[0])
            self.assertEqual(job.returncode, 3)
            self.assert_nothing_is_left()


report.main()
