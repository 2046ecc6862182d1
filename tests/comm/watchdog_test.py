"""What is reported where a rank does not come, and when a signal asks for it."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "testing"))
import report
from virtual_hosts import CLUSTER, need_hosts

PROGRAM = sys.argv.pop()
LAUNCH = sys.argv.pop()
MPICH = os.environ.get("LOCKSTEP_MPI") == "mpich"


def run(mode, ranks=3, **variables):
    begin = time.monotonic()
    job = subprocess.run([LAUNCH, "-n", str(ranks), PROGRAM, mode], capture_output=True, text=True, timeout=60,
                         env={**os.environ, **variables})
    job.seconds = time.monotonic() - begin
    return job


def program_of(process):
    """Nothing where it has ended."""
    try:
        return os.readlink(f"/proc/{process}/exe")
    except OSError:
        return ""


def processes():
    """Of the program, on all virtual hosts."""
    found = subprocess.run(["pgrep", "-f", f"{PROGRAM} meets$"], capture_output=True, text=True).stdout.split()
    return [process for process in found if os.path.basename(PROGRAM) in program_of(process)]


def udp_ports(process):
    """Those of the sockets that a process has."""
    sockets = [os.readlink(path) for path in pathlib.Path(f"/proc/{process}/fd").iterdir() if path.is_symlink()]
    rows = [row.split() for row in pathlib.Path(f"/proc/{process}/net/udp").read_text().splitlines()[1:]]
    return [int(row[1].rpartition(":")[2], 16) for row in rows if f"socket:[{row[9]}]" in sockets]


class Watchdog(unittest.TestCase):
    def assert_report(self, job, *lines):
        """That there is one report of a deadline, with these lines in it."""
        self.assertNotEqual(job.returncode, 0, job.stderr)
        self.assertEqual(len(re.findall("^a deadline has passed: ", job.stderr, re.MULTILINE)), 1, job.stderr)
        for line in lines:
            self.assertRegex(job.stderr, re.compile(line, re.MULTILINE))
        self.assertLess(job.seconds, 2 + 5 + 3)

    def test_a_rank_in_code_of_its_own_is_named_with_its_functions(self):
        for ranks in 2, 3, 4:
            with self.subTest(ranks=ranks):
                others = "rank 0 on .* waits" if ranks == 2 else r"ranks 0, 2.* on .* wait"
                self.assert_report(
                    run("loops", ranks),
                    r"^a deadline has passed: rank \d has waited 2 s for rank 1 to make call 2: barrier$",
                    rf"^  {others} for rank 1 to make call 2: barrier, since 2 s$",
                    r"^  rank 1 on .* is in code of its own$", r"^      at loop_in_code_of_its_own\(\)$", r"^      at main$")

    def test_a_rank_that_is_stopped_is_told_from_one_that_computes(self):
        self.assert_report(run("stops"), r"^  rank 1 on .* does not answer: its process is stopped$")

    def test_a_rank_in_a_call_of_the_system_is_named_with_its_functions(self):
        self.assert_report(run("sleeps"), r"^  rank 1 on .* is in code of its own$", r"^      at .*nanosleep")

    def test_a_reduction_is_named_with_its_parameters_and_step(self):
        self.assert_report(
            run("reduces"),
            r"^  ranks 0, 2 on .*, after 2 steps, wait for rank 1 to make .*, with parameters 'weight', 'bias', since 2 s$",
            r"^  rank 1 on .*, after 2 steps, is in code of its own$")

    def test_ends_processes_that_mpi_abort_does_not_end(self):
        job = run("is not aborted")
        self.assert_report(job)
        self.assertRegex(job.stderr, r"rank \d on \S+ is ended by its watchdog, since MPI_Abort has not done so in 5 s\n")

    def test_a_host_that_began_mpi_goes_on(self):
        job = run("goes on")
        self.assertEqual(job.returncode, 0, job.stderr)
        self.assertEqual(sorted(re.findall(r"^rank \d goes on$", job.stdout, re.MULTILINE)),
                         ["rank 0 goes on", "rank 2 goes on"])
        self.assertEqual(job.stdout.count("has a watchdog already"), 3)
        self.assertEqual(job.stderr.count("a deadline has passed"), 1, job.stderr)
        self.assertEqual(job.stdout.count("asked by rank"), 3)

    def test_what_ends_a_rank_is_named_with_its_functions_and_where_the_others_are(self):
        for mode, name, status, function in [
                ("segfaults", r"SIGSEGV \(Segmentation fault\)", 139, r"write_to_null\(\)"),
                ("another thread segfaults", r"SIGSEGV \(Segmentation fault\)", 139, r"write_to_null\(\)"),
                ("overflows", r"SIGSEGV \(Segmentation fault\)", 139, "recurse_for_ever.*"),
                ("throws in a thread", r"SIGABRT \(Aborted\)", 134, "abort"),
                ("aborts", r"SIGABRT \(Aborted\)", 134, "abort")]:
            with self.subTest(mode=mode):
                job = run(mode)
                # Hydra may tell the status of a rank that it has killed.
                self.assertIn(job.returncode, {status, 137} if MPICH else {status}, job.stderr)
                self.assertEqual(job.stderr.count(" is ended by "), 1, job.stderr)
                self.assertRegex(job.stderr, rf"(?m)^rank 1 on \S+ is ended by {name}\n(      at .*\n)*      at {function}\n")
                self.assertRegex(job.stderr, r"\n  ranks 0, 2 on \S+ wait for rank 1 to make call 2: barrier, since \d\S* s\n")
                self.assertNotIn("Process received signal", job.stderr)  # by Open MPI

    def waiting(self, mode="waits"):
        """A job that waits, and the processes of its three ranks."""
        environment = os.environ.copy()
        environment.pop("OMPI_MCA_odls_base_sigkill_timeout", None)  # as users have it
        job = subprocess.Popen([LAUNCH, "-n", "3", PROGRAM, mode], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, env=environment)
        self.addCleanup(job.communicate)
        self.addCleanup(job.kill)
        processes = [int(job.stdout.readline()) for _ in range(3)]
        time.sleep(0.5)
        return job, processes

    def test_a_rank_that_is_killed_is_named_by_those_that_are_ended_for_it(self):
        job, processes = self.waiting()
        # The processes are in any order.
        os.kill(processes[0], signal.SIGKILL)
        errors = job.communicate(timeout=20)[1]
        self.assertEqual(job.returncode, 137, errors)
        if MPICH:
            return self.assertEqual(errors, "")  # Hydra kills the others at once
        gone = re.search(r"^rank (\d) has gone, and SIGTERM ends the others:$", errors, re.MULTILINE)
        self.assertTrue(gone, errors)
        self.assertRegex(errors, rf"(?m)^  rank {gone[1]} on \S+ does not answer: its process has ended$")
        self.assertEqual(len(re.findall(r"(?m)^\S.*", errors)), 1, errors)

    def test_where_all_are_ended_nothing_is_said(self):
        job, _ = self.waiting()
        job.terminate()
        self.assertEqual(job.communicate(timeout=20)[1], "")
        self.assertNotEqual(job.returncode, 0)

    def test_a_handler_of_the_program_decides_what_becomes_of_sigterm(self):
        job, _ = self.waiting("waits with a handler")
        job.terminate()
        self.assertEqual(job.communicate(timeout=20)[1], "")
        self.assertEqual(job.returncode, 7)

    def signalled(self, number, to, before=lambda processes: None, **variables):
        """What a job prints that waits, and is sent a signal: all of its ranks, or one. After something else."""
        job = subprocess.Popen([LAUNCH, "-n", "3", PROGRAM, "waits"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, env={**os.environ, **variables})
        self.addCleanup(job.stdout.close)
        self.addCleanup(job.stderr.close)
        self.addCleanup(job.kill)
        processes = [int(job.stdout.readline()) for _ in range(3)]
        before(processes)
        time.sleep(2)
        for _ in range(2):
            for process in processes[:to]:
                os.kill(process, number)
            time.sleep(2)
        for process in processes:
            os.kill(process, signal.SIGKILL)
        return job.communicate(timeout=60)[1]

    def test_a_signal_prints_where_the_ranks_are_once(self):
        for name, number, to in ("USR2", signal.SIGUSR2, 1), ("SIGURG", signal.SIGURG, 3):
            with self.subTest(name=name, to=to):
                errors = self.signalled(number, to, LOCKSTEP_REPORT_SIGNAL=name)
                self.assertEqual(errors.count("where the ranks are:\n"), 2, errors)
                self.assertRegex(errors, r"\n  ranks 0, 2 on .* wait for rank 1 to make call 2: barrier, since \d s\n")
                self.assertRegex(errors, r"\n  rank 1 on .* is in code of its own\n      at ")

    def test_answers_no_strangers(self):
        def talk(processes):
            ports = [port for process in processes for port in udp_ports(process)]
            self.assertGreaterEqual(len(ports), 3)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                for port in ports:
                    for text in (b"", b"{", b"[]", b"\xff" * 100, b"[" * 60000, b'{"token": 3}', b'{"kind": "end"}',
                                 b'{"token": "", "kind": "ask", "rank": 0}', b'{"token": "x", "kind": "end"}'):
                        stranger.sendto(text, ("127.0.0.1", port))
                stranger.settimeout(0.5)
                self.assertRaises(TimeoutError, stranger.recv, 100)

        errors = self.signalled(signal.SIGUSR2, 1, talk, LOCKSTEP_REPORT_SIGNAL="12")
        self.assertEqual(errors.count("where the ranks are:\n"), 2, errors)
        self.assertIn("rank 1 on ", errors)

    def test_ranks_whose_host_is_cut_off_end_on_both_sides(self):
        need_hosts()
        job = subprocess.Popen([CLUSTER, "run", "-H", "2", "-r", "2", "--", PROGRAM, "meets"], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(job.kill)
        self.assertEqual(job.stdout.readline(), "they meet\n")
        begin = time.monotonic()
        subprocess.run([CLUSTER, "cut", "h1", "--cluster", str(job.pid)], check=True, timeout=20)
        while processes() and time.monotonic() < begin + 2 + 5 + 5:
            time.sleep(0.1)
        left = processes()
        # mpirun may wait for the other host, as long as TCP sends again what has not arrived.
        job.terminate()
        output, errors = job.communicate(timeout=60)
        self.assertEqual(left, [], errors)
        self.assertRegex(errors, re.compile(r"^a deadline has passed: rank \d has waited 2 s for ", re.MULTILINE))
        self.assertRegex(errors, r"\n  ranks 2, 3 on h1\S* do not answer: nor does any other rank on that host\n")

    def test_it_can_be_left_out(self):
        job = run("loops", LOCKSTEP_WATCHDOG="0")
        self.assertNotEqual(job.returncode, 0)
        self.assertNotIn("a deadline has passed", job.stderr)
        self.assertIn("rank 1 to make call 2: barrier", job.stderr)

    def test_variables_that_cannot_be_used_are_refused_in_a_line(self):
        for variable, message in [("LOCKSTEP_REPORT_SIGNAL=USR9", "a signal such as USR2, found 'USR9'"),
                                  ("LOCKSTEP_DEADLINE=soon", "a number of seconds, found 'soon'")]:
            only_on_1 = f'test "${{OMPI_COMM_WORLD_RANK-$PMI_RANK}}" != 1 || export {variable}; exec "$@"'
            job = subprocess.run([LAUNCH, "-n", "3", "sh", "-c", only_on_1, "sh", PROGRAM, "loops"], capture_output=True,
                                 text=True, timeout=60)
            self.assertEqual((job.returncode, job.stderr),
                             (1, f"error: {variable.partition('=')[0]}: expected {message} (rank 1)\n"))


report.main()
