"""scripts/launch: what becomes of a job that is stopped, or whose launcher is killed, and what it asks of the system."""

import os
import pty
import signal
import subprocess
import sys
import time
import unittest

import report
import strace

LAUNCH = sys.argv.pop()
# As users have it, unlike the other tests.
os.environ.pop("OMPI_MCA_odls_base_sigkill_timeout", None)

# A rank that says its process, and takes two seconds to end: longer than mpirun of Open MPI gives it.
ENDS_LATE = "trap 'sleep 2; echo ended; exit 7' TERM; echo $$; while :; do sleep 0.2; done"
IGNORES = "trap '' TERM; echo $$; while :; do sleep 0.2; done"


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


class Launch(unittest.TestCase):
    def start(self, script, ranks=2):
        """A job, and the processes of its ranks."""
        # Where the tests themselves ignore it, as under nohup, a shell could not catch it.
        job = subprocess.Popen([LAUNCH, "-n", str(ranks), "bash", "-c", script], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))
        self.addCleanup(job.stdout.close)
        self.addCleanup(job.kill)
        return job, [int(job.stdout.readline()) for _ in range(ranks)]

    def assert_gone(self, processes):
        # That is mpirun's work, which the launcher does not wait for where it was killed.
        end = time.monotonic() + 60
        while any(map(alive, processes)) and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual([process for process in processes if alive(process)], [])

    def test_passes_on_input_output_and_status(self):
        for status in 0, 1, 75:
            # The other rank has no input, and would end the job before this one has read its own.
            script = f'cat; [ "${{OMPI_COMM_WORLD_RANK:-$PMI_RANK}}" != 0 ] || exit {status}'
            job = subprocess.run([LAUNCH, "-n", "2", "bash", "-c", script], input="text\n",
                                 capture_output=True, text=True, timeout=60)
            self.assertEqual((job.returncode, job.stdout), (status, "text\n"))

    @unittest.skipIf(strace.why_not(), strace.why_not())
    def test_looks_up_no_names(self):
        asked = subprocess.run(["strace", "-f", "-e", "trace=openat", LAUNCH, "-n", "1", "true"],
                               capture_output=True, text=True, timeout=60)
        self.assertEqual(asked.returncode, 0, asked.stderr)
        self.assertIn("openat(", asked.stderr)
        looked_up = 1 if os.environ.get("LOCKSTEP_MPI") == "mpich" else 0  # by Hydra
        self.assertEqual(asked.stderr.count('"/etc/hosts"'), looked_up, asked.stderr)

    def test_gives_ranks_the_time_to_end_by_themselves(self):
        for number in signal.SIGTERM, signal.SIGHUP:
            job, ranks = self.start(ENDS_LATE)
            job.send_signal(number)
            self.assertEqual(job.communicate(timeout=60)[0], "ended\nended\n")
            self.assertEqual(job.returncode, 7)
            self.assert_gone(ranks)

    def test_takes_ctrl_c_of_a_terminal_for_the_same(self):
        process, terminal = pty.fork()
        if process == 0:
            os.execv(LAUNCH, [LAUNCH, "-n", "2", "bash", "-c", ENDS_LATE])
        output = b""
        while output.count(b"\n") < 2:
            output += os.read(terminal, 100)
        os.write(terminal, b"\x03")
        try:
            while read := os.read(terminal, 100):
                output += read
        except OSError:  # the end of a terminal
            pass
        self.assertEqual(output.count(b"ended"), 2, output)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), 7)

    def test_kills_ranks_that_do_not_end_at_a_second_signal(self):
        job, ranks = self.start(IGNORES)
        job.send_signal(signal.SIGTERM)
        with self.assertRaises(subprocess.TimeoutExpired):
            job.wait(1)
        for _ in range(3):
            job.send_signal(signal.SIGTERM)
            time.sleep(0.1)
        job.communicate(timeout=60)
        self.assertNotEqual(job.returncode, 0)
        self.assert_gone(ranks)

    def test_takes_its_ranks_along_when_it_is_killed(self):
        job, ranks = self.start(IGNORES)
        job.kill()
        self.assert_gone(ranks)

    def test_passes_on_user_signals_and_goes_on(self):
        script = "trap 'echo USR1' USR1; trap 'echo USR2; exit 4' USR2; echo $$; while :; do sleep 0.2; done"
        job, _ = self.start(script)
        job.send_signal(signal.SIGUSR1)
        self.assertEqual([job.stdout.readline() for _ in range(2)], ["USR1\n"] * 2)
        job.send_signal(signal.SIGUSR2)
        self.assertEqual(job.communicate(timeout=60)[0], "USR2\n" * 2)
        self.assertEqual(job.returncode, 4)

    def test_ends_a_job_of_which_a_rank_is_killed(self):
        job, ranks = self.start(IGNORES)
        os.kill(ranks[1], signal.SIGKILL)
        job.communicate(timeout=60)
        self.assertEqual(job.returncode, 128 + signal.SIGKILL)
        self.assert_gone(ranks)


report.main()
