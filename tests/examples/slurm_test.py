"""Tests of scripts/slurm with a SLURM of virtual hosts: jobs are preempted, run again, and go on with what they have
saved."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "testing"))
FIXTURE = pathlib.Path(sys.argv.pop(1)).resolve()
import report
from fashion_mnist import Example, newest_state
from virtual_hosts import CLUSTER, need_hosts

SLURM, ON_HOSTS = ROOT / "scripts" / "slurm", ROOT / "tests/testing/on_hosts.py"


class Slurm(Example):
    @classmethod
    def setUpClass(cls):
        need_hosts("--slurm")
        super().setUpClass()

    def on_cluster(self, script, *arguments):
        """What a script prints that runs beside two nodes of 2 ranks each."""
        job = subprocess.run([CLUSTER, "run", "-H", "2", "-r", "2", "--slurm", "--", "bash", "-euc", script, "bash",
                              *map(str, arguments)], text=True, capture_output=True, timeout=250, cwd=self.folder)
        self.assertEqual(job.returncode, 0, job.stdout + job.stderr)
        return job.stdout

    def written(self, name):
        return (self.folder / name).read_text()

    def test_runs_a_program_on_the_ranks_of_all_nodes(self):
        self.on_cluster('"$@"', SLURM, "--nodes=2", "--ntasks-per-node=2", "--wait", "--output=output", "--",
                        "sh", "-c", 'echo "$(hostname) $1"', "sh", "a  $b '")
        self.assertEqual(sorted(self.written("output").splitlines()),
                         ["h0 a  $b '"] * 2 + ["h1 a  $b '"] * 2)

    def test_the_job_has_the_status_of_the_last_run(self):
        script = 'echo run $LOCKSTEP_RESTARTS; exit 3'
        job = subprocess.run([CLUSTER, "run", "-H", "1", "--slurm", "--", SLURM, "--wait", "--output=output", "--",
                              "sh", "-c", f"test $LOCKSTEP_RESTARTS = 2 && exit 126; {script}"], cwd=self.folder,
                             text=True, capture_output=True, timeout=100)
        self.assertEqual(job.returncode, 126, job.stderr)
        self.assertEqual([line for line in self.written("output").splitlines() if line.startswith("run")],
                         ["run 0", "run 1"])

    def test_tests_run_on_the_ranks_of_all_nodes(self):
        environment = "LOCKSTEP_TEST_NAME= LOCKSTEP_TEST_ONLY=Fixture.passes LOCKSTEP_TEST_HOSTS=2x1"
        command = f"{environment} {sys.executable} {ON_HOSTS} {CLUSTER} 1,2 {FIXTURE}"
        self.on_cluster(f"sbatch --nodes=2 --ntasks-per-node=1 --wait --output=output --wrap='{command}'")
        self.assertRegex(self.written("output"), r"(?m)^[1-9]\d* passed, 0 failed, 0 skipped$")

    def test_a_job_that_is_preempted_goes_on_where_it_was_with_the_nodes_that_are_left(self):
        options = ["--epochs", 16, "--logical-replicas", 4, "--batch", 5]
        self.train(1, *options, out=self.folder / "undisturbed")
        job = [SLURM, "--nodes=1-2", "--ntasks-per-node=1", "--output=output", "--again=--resume",
               f"--if={self.out}/checkpoints", "--", *self.command(0, *options)]
        self.on_cluster("""
            "$@"
            until ls out/checkpoints/step-*.lockstep 2>/dev/null; do sleep 0.1; done
            sbatch --partition=urgent --nodes=1 --output=urgent --wrap='hostname; until test -e done; do sleep 0.1; done'
            until grep -q resumed output; do sleep 0.1; done
            squeue --noheader --format='%P %T %D' >states
            touch done
            until test -z "$(squeue --noheader)"; do sleep 0.2; done
            """, *job)
        self.assertEqual(sorted(self.written("states").splitlines()), ["normal RUNNING 1", "urgent RUNNING 1"])
        output = self.written("output")
        self.assertIn(", 2 ranks,", output)
        self.assertRegex(output, r"stopped after \d+ images of epoch \d+: go on with --resume")
        self.assertRegex(output, r", 1 rank, .*, resumed after ")
        self.assertEqual(newest_state(self.out), newest_state(self.folder / "undisturbed"))

    def test_bad_arguments_are_refused_with_what_is_wrong(self):
        for arguments, part in [
                ([], "usage: "), (["--nodes=2"], "usage: "), (["--nodes=2", "--"], "usage: "),
                (["--nodes", "2", "--", "true"], "'2' is no option of sbatch such as --nodes=2")]:
            job = subprocess.run([SLURM, *arguments], text=True, capture_output=True, timeout=20)
            self.assertEqual((job.returncode, job.stdout), (2, ""))
            self.assertIn(part, job.stderr)

    def test_the_help_fits_a_terminal_and_has_an_example(self):
        job = subprocess.run([SLURM, "--help"], text=True, capture_output=True, timeout=20)
        self.assertEqual((job.returncode, job.stderr), (0, ""))
        self.assertLessEqual(max(map(len, job.stdout.splitlines())), 80)
        self.assertIn("scripts/slurm --nodes=2", job.stdout)


report.main()
