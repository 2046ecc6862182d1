"""The Fashion-MNIST example as its users see it: what it prints and writes, how it resumes, and what
it says to bad input."""

import gzip
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import sys
import xml.etree.ElementTree

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "testing"))
import report
from fashion_mnist import Example, contents, newest_checkpoint, newest_state, write_split


class Training(Example):
    def check_run(self, ranks, **paths):
        output = self.train(ranks, "--epochs", 2, **paths)
        self.assertNotRegex(output, r"[\x00-\x09\x0b-\x1f]")
        self.assertIn(f"200 training and 60 test images, {max(ranks, 1)} rank{'s' if ranks > 1 else ''},", output)
        accuracy = re.findall(r"^test accuracy +([\d.]+) % after epoch 2$", output, re.MULTILINE)
        self.assertEqual(len(accuracy), 1, output)
        self.assertGreater(float(accuracy[0]), 90, output)
        newest = newest_checkpoint(self.out).relative_to(self.out)
        for name in newest, "metrics.jsonl", "curves.svg":
            self.assertEqual(output.count(str(self.out / name)), 1, output)
        files = sorted(contents(self.out))
        self.assertEqual(len(files), 4)
        self.assertEqual(files[1:], [str(newest), "curves.svg", "metrics.jsonl"])

        records = self.metrics()
        for record in records:
            self.assertLessEqual({"split", "step", "epoch", "loss", "accuracy"}, set(record))
        tests = [record for record in records if record["split"] == "test"]
        self.assertEqual([record["epoch"] for record in tests], [1, 2])
        self.assertAlmostEqual(tests[-1]["accuracy"] * 100, float(accuracy[0]), delta=0.01)
        self.assertEqual(tests[-1]["accuracy"] * 60 % 1, 0)
        training = [record for record in records if record["split"] == "train"]
        self.assertEqual([record["epoch"] for record in training if record["epoch"] % 1 == 0], [1, 2])
        self.assertLess(training[-1]["loss"], training[0]["loss"])
        for record in training:
            self.assertEqual(record["lr"], 5e-4)
            self.assertGreater(record["samples_per_second"], 0)
            self.assertEqual(len(record["waiting"]), max(ranks, 1))
            for share in record["waiting"]:
                self.assertGreaterEqual(share, 0)
                self.assertLess(share, 1)

        picture = xml.etree.ElementTree.parse(self.out / "curves.svg").getroot()
        self.assertTrue(picture.tag.endswith("svg"))
        self.assertIn("accuracy", "".join(picture.itertext()))

    def test_without_mpirun(self):
        self.check_run(0)

    def test_on_2_ranks(self):
        self.check_run(2)

    def test_on_3_ranks_from_compressed_files(self):
        data = self.copy_data()
        for path in list(data.iterdir()):
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        self.check_run(3, data=data, batch=15)

    def test_with_a_last_batch_that_some_ranks_have_no_part_of(self):
        data = self.copy_data()
        write_split(data, "train", 61)
        self.train(3, "--epochs", 1, data=data)
        self.assertEqual(self.metrics()[-1]["step"], 2)

    def test_help_is_printed_once(self):
        for ranks in 0, 2:
            job = self.run_on(ranks, "--help")
            self.assertEqual((job.returncode, job.stderr), (0, ""))
            for option in "--resume", "--optimizer", "--out":
                self.assertEqual(len(re.findall(rf"^  {option}\b", job.stdout, re.MULTILINE)), 1)
            self.assertLess(max(map(len, job.stdout.splitlines())), 80)
        self.assertFalse(self.out.exists())


class Resuming(Example):
    def test_gives_the_checkpoint_of_an_uninterrupted_run(self):
        for ranks in 1, 2:
            for optimizer in "sgd", "adam":
                with self.subTest(ranks=ranks, optimizer=optimizer):
                    whole, parts = (self.folder / f"{optimizer}{ranks}{kind}" for kind in "wp")
                    rule = "--optimizer", optimizer
                    self.train(ranks, *rule, "--epochs", 2, out=whole)
                    self.train(ranks, *rule, "--epochs", 1, out=parts)
                    first = newest_state(parts)
                    output = self.train(ranks, *rule, "--epochs", 2, "--resume", out=parts)
                    self.assertIn("resumed after epoch 1", output)
                    last = newest_state(parts)
                    self.assertNotEqual(first, last)
                    self.assertEqual(last, newest_state(whole))
                    self.assertEqual(self.results(parts), self.results(whole))

    def test_on_other_numbers_of_ranks(self):
        self.train(2, "--epochs", 1)
        for epochs, ranks in (2, 4), (3, 1):
            self.train(ranks, "--epochs", epochs, "--resume")
            tests = [record for record in self.metrics() if record["split"] == "test"]
            self.assertEqual([record["epoch"] for record in tests], list(range(1, epochs + 1)))
            steps = [(record["step"], record["split"]) for record in self.metrics()]
            self.assertEqual(len(steps), len(set(steps)))
            self.assertEqual(steps, sorted(steps, key=lambda step: step[0]))

    def test_drops_the_metrics_that_came_after_the_checkpoint(self):
        self.train(1, "--epochs", 1)
        whole = self.metrics()
        with open(self.out / "metrics.jsonl", "a") as file:
            file.write('{"split":"train","step":999,"epoch":5.5,"loss":1.0,"accuracy":0.5}\n{"to')
        self.train(1, "--epochs", 1, "--resume")
        self.assertEqual(self.metrics(), whole)

    def test_of_a_finished_run_evaluates_it(self):
        self.train(1, "--epochs", 1)
        before = contents(self.out)
        self.assertIn("after epoch 1", self.train(1, "--epochs", 1, "--resume"))
        self.assertEqual(contents(self.out), before)

    def test_takes_a_new_learning_rate(self):
        self.train(1, "--epochs", 1)
        kept = self.folder / "kept"
        shutil.copytree(self.out, kept)
        self.train(1, "--epochs", 2, "--resume", "--lr", 1e-5)
        self.train(1, "--epochs", 2, "--resume", out=kept)
        self.assertNotEqual(self.results(), self.results(kept))


class Stopping(Example):
    def stop(self, ranks, number, *options):
        """Starts a run, stops it by a signal in its second epoch or after, and returns what it has said."""
        job = subprocess.Popen(self.command(ranks, *options), cwd=self.folder, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(job.kill)
        for line in job.stdout:
            if "on the test images" in line:
                break
        job.send_signal(number)
        output, errors = job.communicate(timeout=60)
        self.assertEqual(errors, "")
        self.assertIn("go on with --resume", output)
        return output

    def test_by_a_signal_and_going_on_with_batches_of_another_size(self):
        options = "--epochs", 40, "--batch", 5
        stopped = self.stop(2, signal.SIGTERM, *options)
        place = re.search(r"^stopped after (.*):", stopped, re.MULTILINE)[1]
        output = self.train(3, *options, "--resume")
        self.assertIn(f"resumed after {place}", output)
        self.assertIn("epoch 40/40", output)

    def test_by_a_signal_and_going_on_gives_the_checkpoint_of_an_uninterrupted_run(self):
        options = "--epochs", 40, "--logical-replicas", 4, "--batch", 5
        whole = self.folder / "whole"
        self.train(2, *options, out=whole)
        for ranks, number in (0, signal.SIGINT), (2, signal.SIGTERM), (2, signal.SIGUSR1):
            with self.subTest(ranks=ranks, number=number):
                self.out = self.folder / f"{ranks}{number}"
                stopped = self.stop(ranks, number, *options)
                place = re.search(r"^stopped after (.*):", stopped, re.MULTILINE)[1]
                output = self.train(3 - ranks, *options, "--resume")
                self.assertIn(f"resumed after {place}", output)
                self.assertEqual(newest_state(self.out),
                                 newest_state(whole))
                # The loss is summed in another order on another number of ranks.
                tests = [[(record["step"], record["epoch"], record["accuracy"])
                          for record in self.metrics(out) if record["split"] == "test"] for out in (self.out, whole)]
                self.assertEqual(*tests)
                steps = [record["step"] for record in self.metrics()]
                self.assertEqual(steps, sorted(steps))

    def test_at_the_end_of_an_epoch_where_its_middle_is_in_no_checkpoint(self):
        options = "--epochs", 40, "--uneven", "join", "--batch", 10
        self.assertRegex(self.stop(2, signal.SIGUSR1, *options), r"\nstopped after epoch \d+:")
        self.train(2, *options, "--resume")


class BadInput(Example):
    def assert_refused(self, *options, ranks=(0, 2), parts=(), **paths):
        out = paths.get("out", self.out)
        before = contents(out)
        for count in ranks:
            job = self.run_on(count, *options, **paths)
            self.assertNotEqual(job.returncode, 0)
            self.assertRegex(job.stderr, r"\Aerror: [^\n]+\n\Z")
            self.assertEqual(job.stdout, "")
            for part in parts:
                self.assertIn(str(part), job.stderr)
            self.assertEqual(contents(out), before)

    def test_missing_data_folder(self):
        self.assert_refused(data=self.folder / "none", parts=[self.folder / "none"])

    def test_a_missing_file(self):
        for name in "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte":
            data = self.copy_data()
            (data / name).unlink()
            self.assert_refused(data=data, parts=[data / name, "no such file"], ranks=[2])
            shutil.rmtree(data)

    def test_a_truncated_compressed_file(self):
        data = self.copy_data()
        name = "train-images-idx3-ubyte"
        packed = gzip.compress((data / name).read_bytes())
        (data / name).unlink()
        (data / f"{name}.gz").write_bytes(packed[:len(packed) // 2])
        self.assert_refused(data=data, parts=[f"{name}.gz"])

    def test_different_counts_of_images_and_labels(self):
        data = self.copy_data()
        write_split(data, "train", 200, labels=199)
        self.assert_refused(data=data, parts=["200", "199", "train-labels"])

    def test_images_of_another_size(self):
        data = self.copy_data()
        path = data / "train-images-idx3-ubyte"
        path.write_bytes(struct.pack(">4i", 0x803, 200, 14, 28) + path.read_bytes()[16:16 + 200 * 392])
        self.assert_refused(data=data, parts=["train", "392", "784"])

    def test_no_images(self):
        data = self.copy_data()
        write_split(data, "t10k", 0)
        self.assert_refused(data=data, ranks=[2])

    def test_a_label_beyond_the_classes(self):
        data = self.copy_data()
        path = data / "train-labels-idx1-ubyte"
        path.write_bytes(path.read_bytes()[:-1] + b"\x0a")
        for ranks in 0, 2:
            job = self.run_on(ranks, data=data)
            self.assertNotEqual(job.returncode, 0)
            self.assertRegex(job.stderr, r"\Aerror[^\n]* label 10 [^\n]+\n\Z")
            self.assertEqual([name for name in contents(self.out) if "step-" in name], [])

    def test_a_checkpoint_of_another_optimizer(self):
        self.train(1, "--epochs", 1, "--optimizer", "sgd")
        self.assert_refused("--resume", "--epochs", 2, "--optimizer", "adam",
                            parts=["step-000000010.lockstep", "SGD", "Adam"])

    def test_a_checkpoint_of_another_seed(self):
        self.train(1, "--epochs", 1)
        self.assert_refused("--resume", "--epochs", 2, "--seed", 7, parts=["seed 1", "7"])

    def test_a_damaged_checkpoint(self):
        self.train(1, "--epochs", 1)
        path = newest_checkpoint(self.out)
        whole = bytearray(path.read_bytes())
        for damaged in whole[:-100], whole[:100000] + bytes([whole[100000] ^ 1]) + whole[100001:], b"x":
            path.write_bytes(damaged)
            self.assert_refused("--resume", "--epochs", 2, parts=[path, "cannot be used"], ranks=[2])

    def test_a_resume_without_a_checkpoint(self):
        self.assert_refused("--resume", parts=["--resume", self.out / "checkpoints"])
        self.assertFalse(self.out.exists())

    def test_an_existing_checkpoint_without_a_resume(self):
        self.train(1, "--epochs", 1)
        self.assert_refused("--epochs", 2, parts=[self.out / "checkpoints", "--resume"])

    def test_a_damaged_metrics_log(self):
        self.train(1, "--epochs", 1)
        (self.out / "metrics.jsonl").write_text("no log\n")
        self.assert_refused("--resume", "--epochs", 2, parts=["metrics.jsonl"])

    def test_options_out_of_range(self):
        for options, part in ((("--optimizer", "lion"), "lion"), (("--turbo",), "--turbo"),
                              (("surplus",), "surplus"), (("--batch", 0), "--batch"),
                              (("--batch", "many"), "--batch"), (("--epochs", -1), "--epochs"),
                              (("--epochs", 0), "--epochs"), (("--epochs", 1.5), "--epochs"),
                              (("--lr", -0.1), "lr"), (("--lr", "nan"), "lr"), (("--lr", "inf"), "lr"),
                              (("--lr",), "--lr"), (("--seed", -1), "--seed"),
                              (("--optimizer", "sgd", "--momentum", -1), "momentum"),
                              (("--batch", 201), "201"), (("--batch", 2**62), "batch")):
            with self.subTest(options=options):
                self.assert_refused(*options, parts=[part], ranks=[1 if "201" in part else 2])
        self.assertFalse(self.out.exists())

    def test_an_out_folder_that_cannot_be_made(self):
        file = self.folder / "file"
        file.write_text("precious")
        for out in file, file / "below", pathlib.Path("/proc/lockstep"):
            self.assert_refused(out=out, parts=["/proc/lockstep" if "proc" in out.parts else file])
        self.assertEqual(file.read_text(), "precious")


report.main()
