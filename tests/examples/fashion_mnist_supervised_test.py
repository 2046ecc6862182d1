"""The Fashion-MNIST example under scripts/supervise: hosts that are killed in the midst of it do not change its result."""

import pathlib
import random
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "testing"))
import report
from fashion_mnist import LAUNCH, Example, newest_state
from virtual_hosts import CLUSTER, need_hosts


class Supervised(Example):
    def kill(self, host, cluster):
        subprocess.run([CLUSTER, "kill", host, "--cluster", str(cluster)], check=True, timeout=20)

    def newest_step(self):
        return max((int(file.stem.partition("-")[2]) for file in self.out.glob("checkpoints/step-*.lockstep")), default=0)

    def test_hosts_killed_at_random_change_no_bit_of_the_result(self):
        need_hosts()
        options = ["--logical-replicas", 4, "--batch", 5]
        self.train(1, "--epochs", 16, *options, out=self.folder / "undisturbed")

        command = self.command(0, "--epochs", 16, *options)
        job = subprocess.Popen(
            [CLUSTER, "run", "-H", "4", "--head", "--", ROOT / "scripts" / "supervise", "--watch", "0.5",
             "--again=--resume", f"--if={self.out}/checkpoints", "--", LAUNCH, "-n", "{ranks}", *command],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.folder)
        self.addCleanup(job.kill)
        seed = random.randrange(1000)
        numbers = random.Random(seed)
        hosts = numbers.sample(["h0", "h1", "h2", "h3"], 2)
        steps = numbers.randrange(10, 60), numbers.randrange(80, 130)
        for host, step in zip(hosts, steps):
            while job.poll() is None and self.newest_step() < step:
                time.sleep(0.02)
            time.sleep(numbers.random() / 10)
            self.kill(host, job.pid)
        output, errors = job.communicate(timeout=100)
        self.assertEqual(job.returncode, 0, f"seed {seed}: {output}{errors}")
        for host in hosts:
            self.assertIn(f"{host} does not answer: ending the job", errors)
        self.assertIn("the job ended well, after 2 restarts", errors)
        self.assertEqual(output.count(", resumed after "), 2, output)
        self.assertEqual(newest_state(self.out), newest_state(self.folder / "undisturbed"), f"seed {seed}")


report.main()
