"""The options of the Fashion-MNIST example that switch a feature on: what is known of their results,
and which of them contradict each other."""

import os
import pathlib
import sys
import unittest.mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "testing"))
import report
from fashion_mnist import Example, newest_state


class Variants(Example):
    """What the options make of training, on two ranks where nothing else is said."""

    def variant(self, *options, ranks=2, epochs=1, batch=20):
        """Its results, in a folder of its own, which is `self.last`."""
        self.last = self.folder / f"run{len(list(self.folder.iterdir()))}"
        self.train(ranks, "--epochs", epochs, *options, out=self.last, batch=batch)
        return self.results(self.last)

    def assert_close(self, results, expected):
        """Alike but for rounding."""
        for result, other in zip(results, expected, strict=True):
            self.assertAlmostEqual(result["loss"], other["loss"], delta=1e-5)
            self.assertEqual({**result, "loss": 0, "lr": 0}, {**other, "loss": 0, "lr": 0})

    def check_resume(self, *options):
        whole = self.variant(*options, epochs=2)
        checkpoint = newest_state(self.last)
        self.train(2, *options, "--epochs", 1)
        self.train(2, *options, "--epochs", 2, "--resume")
        self.assertEqual(self.results(), whole)
        self.assertEqual(newest_state(self.out), checkpoint)
        return whole

    def test_logical_replicas_give_the_same_bits_on_any_number_of_ranks(self):
        for options in (), ("--batch-norm", "average", "--optimizer", "sgd"):
            checkpoints = set()
            for ranks in 1, 2, 3:
                self.variant("--logical-replicas", 4, *options, ranks=ranks, batch=15)
                checkpoints.add(newest_state(self.last))
            self.assertEqual(len(checkpoints), 1)
        self.train(3, "--logical-replicas", 4, "--epochs", 1, batch=15)
        self.train(1, "--logical-replicas", 4, "--epochs", 2, "--resume", batch=15)
        self.variant("--logical-replicas", 4, epochs=2, batch=15)
        self.assertEqual(newest_state(self.out),
                         newest_state(self.last))

    def test_a_convolutional_network_learns_and_resumes(self):
        cnn = "--network", "cnn", "--lr", 2e-3
        whole = self.check_resume(*cnn, "--batch-norm", "average")
        self.assertEqual([record["split"] for record in whole], ["train", "test"] * 2)
        self.assertGreater(self.variant(*cnn, epochs=3)[-1]["accuracy"], 0.9)
        self.train(2, "--epochs", 1, out=self.folder / "mlp")
        job = self.run_on(2, *cnn, "--epochs", 2, "--resume", out=self.folder / "mlp")
        self.assertEqual(job.returncode, 1)
        self.assertRegex(job.stderr, r"\Aerror: [^\n]+\n\Z")

    def test_accumulated_batches_make_the_step_of_a_large_one(self):
        sgd = "--optimizer", "sgd"
        self.assert_close(self.variant(*sgd, "--accumulate", 2, batch=10), self.variant(*sgd, batch=20))
        whole = self.variant(*sgd, batch=100)
        self.assert_close(self.variant(*sgd, "--accumulate", 6, batch=20), whole)  # all 5 that there are

    def test_a_sum_of_gradients_is_the_mean_times_the_images(self):
        mean = self.variant("--optimizer", "sgd", "--lr", 0.05)
        self.assert_close(self.variant("--optimizer", "sgd", "--lr", 0.05 / 40, "--reduction", "sum"), mean)

    def test_what_changes_no_bit(self):
        plain = self.variant()
        for options in (("--predivide", 4), ("--missing", "leave-out"), ("--missing", "error"),
                        ("--check-every", 0), ("--check-every", 2), ("--clip", 1e9), ("--sharded",),
                        ("--sharded", "--in-reduction"),
                        ("--non-finite", "skip"), ("--loss-scale",),
                        # There is one host.
                        ("--wire", "fp16"), ("--top-k", 0.01), ("--power-sgd", 2)):
            with self.subTest(options=options):
                results = self.variant(*options)
                for record in results:
                    self.assertEqual(record.pop("skipped_steps", 0), 0)
                    self.assertEqual(record.pop("loss_scale", 65536), 65536)
                self.assertEqual(results, plain)

    def test_threads_change_no_bit(self):
        cnn = "--network", "cnn"
        self.variant(*cnn)
        state = newest_state(self.last)
        with unittest.mock.patch.dict(os.environ, LOCKSTEP_THREADS="3"):
            self.variant(*cnn)
        self.assertEqual(newest_state(self.last), state)
        for text in "0", "two", "1.5":
            with unittest.mock.patch.dict(os.environ, LOCKSTEP_THREADS=text):
                job = self.run_on(2, *cnn, "--epochs", 1, out=self.folder / "refused")
            self.assertEqual(job.returncode, 1)
            self.assertRegex(job.stderr, r"\Aerror: LOCKSTEP_THREADS: expected a number from 1 to 1024, found [^\n]+\n\Z")

    def test_a_sharded_optimizer_goes_on_as_a_whole_one_and_back(self):
        self.train(2, "--sharded", "--epochs", 1)
        self.train(2, "--epochs", 2, "--resume")
        self.train(2, "--sharded", "--epochs", 3, "--resume")
        self.train(2, "--sharded", "--in-reduction", "--epochs", 4, "--resume")
        self.train(2, "--epochs", 5, "--resume")
        self.variant(epochs=5)
        self.assertEqual(newest_state(self.out), newest_state(self.last))

    def test_synchronised_statistics_are_those_of_one_large_batch(self):
        sgd = "--optimizer", "sgd"
        self.assert_close(self.variant(*sgd, "--batch-norm", "synchronised"),
                          self.variant(*sgd, "--batch-norm", "local", ranks=1, batch=40))
        self.assertIn(b"running_mean", newest_state(self.last))

    def test_running_statistics_are_averaged_or_those_of_rank_0(self):
        average, broadcast, local = (self.variant("--batch-norm", policy)
                                     for policy in ("average", "broadcast", "local"))
        self.assertEqual(local, broadcast)
        self.assertEqual(average[0], local[0])
        self.assertNotEqual(average[1], local[1])

    def test_uneven_ranks_train_on_all_images_or_as_long_as_all_have_some(self):
        for uneven, steps in ("join", 7), ("shortest", 4):  # of 66 and of 134 images, 20 at a time
            train, test = self.variant("--uneven", uneven)
            self.assertEqual((train["step"], train["epoch"], test["step"]), (steps, 1, steps))
        self.check_resume("--uneven", "join")
        self.variant("--uneven", "join", "--batch-norm", "synchronised", "--accumulate", 2, ranks=3)

    def test_clipped_gradients_make_small_steps(self):
        sgd = "--optimizer", "sgd", "--momentum", 0
        self.assertGreater(self.variant(*sgd, "--clip", 0.01)[-1]["loss"], self.variant(*sgd)[-1]["loss"] + 0.1)

    def test_gradients_that_are_not_finite(self):
        overflow = "--optimizer", "sgd", "--lr", 1e30
        self.assertEqual([record.get("skipped_steps") for record in self.variant(*overflow, "--non-finite", "skip")],
                         [4, None])
        self.assertIsNone(self.variant(*overflow, "--non-finite", "ignore")[0]["loss"])
        job = self.run_on(2, *overflow, "--non-finite", "error")
        self.assertEqual(job.returncode, 1)
        self.assertRegex(job.stderr, r"\Aerror after \d+ steps: [^\n]+ is not finite[^\n]+\n\Z")

    def test_the_loss_scale_backs_off_and_resumes(self):
        records = self.check_resume("--loss-scale", "--optimizer", "sgd", "--lr", 1e30)
        self.assertEqual([record["loss_scale"] for record in records if record["split"] == "train"],
                         [2.0**12, 2.0**7])  # 4 steps of 5, and all 5

    def test_local_sgd_with_an_average_after_each_step_averages_gradients(self):
        sgd = "--optimizer", "sgd"
        plain = self.variant(*sgd)
        self.assert_close(self.variant(*sgd, "--local-sgd", 1), plain)
        self.assertNotIn("waiting", self.metrics(self.last)[0])
        self.assert_close(self.variant(*sgd, "--local-sgd", 3, "--local-sgd-warmup", 5), plain)
        self.assertNotEqual(self.variant(*sgd, "--local-sgd", 3), plain)

    def test_local_sgd_averages_running_statistics_or_has_those_of_rank_0(self):
        average, local = (self.variant("--optimizer", "sgd", "--local-sgd", 1, "--batch-norm", policy)
                          for policy in ("average", "local"))
        self.assert_close(average, self.variant("--optimizer", "sgd", "--batch-norm", "average"))
        self.assert_close(local, self.variant("--optimizer", "sgd", "--batch-norm", "local"))
        self.assertNotEqual(average[1], local[1])

    # Of 3 steps an epoch, the second one's last two are local.
    local_steps = "--local-sgd", 3, "--local-sgd-warmup", 4, "--uneven", "shortest"

    def test_local_sgd_resumes(self):
        self.check_resume(*self.local_steps, "--batch-norm", "local")

    def test_local_sgd_with_averaged_statistics_resumes(self):
        self.check_resume(*self.local_steps, "--batch-norm", "average")

    def test_compression_between_hosts_trains_as_well(self):
        two = "--hosts", 2
        plain = self.variant(*two, epochs=4)
        for options in (("--wire", "fp16"), ("--wire", "bf16"), ("--top-k", 0.01), ("--power-sgd", 2),
                        ("--power-sgd", 2, "--wire", "bf16", "--compress-after", 5)):
            with self.subTest(options=options):
                self.out = self.folder / "_".join(map(str, options))
                results = self.check_resume(*two, *options)
                self.assertNotEqual(results, plain[:len(results)])
                test = self.variant(*two, *options, epochs=4)[-1]
                self.assertLess(abs(test["accuracy"] - plain[-1]["accuracy"]), 0.05)

    def test_what_compression_has_left_goes_to_other_hosts(self):
        for options in ("--top-k", 0.01), ("--power-sgd", 2):
            out = self.folder / options[0]
            self.train(3, "--hosts", 3, *options, "--epochs", 1, out=out)
            self.train(4, "--hosts", 2, *options, "--epochs", 2, "--resume", out=out)
            self.train(1, *options, "--epochs", 3, "--resume", out=out)

    def test_checks_may_begin_with_a_resume(self):
        self.train(2, "--epochs", 1, "--check-every", 0)
        self.train(2, "--epochs", 2, "--check-every", 1, "--resume")
        self.assertEqual(self.results(), self.variant(epochs=2))

    def test_options_that_contradict_each_other_are_refused(self):
        for options, part in (
                ("--logical-replicas 2 --accumulate 2", "no --accumulate"),
                ("--logical-replicas 2 --uneven join", "no --uneven"),
                ("--logical-replicas 2 --batch-norm synchronised", "average only"),
                ("--logical-replicas 2 --local-sgd 2", "reduces no gradients"),
                ("--reduction sum --missing leave-out", "--reduction sum"),
                ("--loss-scale --non-finite error", "no --non-finite"),
                ("--check-every 1 --local-sgd 2", "alike"),
                ("--check-every 1 --batch-norm local", "alike"),
                ("--local-sgd-warmup 2", "--local-sgd"),
                ("--logical-replicas 2 --wire fp16", "no --wire"),
                ("--logical-replicas 2 --top-k 0.1", "no --wire"),
                ("--local-sgd 2 --power-sgd 1", "reduces no gradients"),
                ("--compress-after 2", "--compress-after"),
                ("--top-k 0.1 --power-sgd 1", "excludes"),
                *((f"--local-sgd 2 {option}", "reduces no gradients")
                  for option in ("--accumulate 2", "--reduction sum", "--predivide 2", "--missing error")),
                ("--local-sgd 2 --loss-scale", "--loss-scale"),
                ("--local-sgd 2 --non-finite skip", "--non-finite skip"),
                ("--local-sgd 2 --uneven join", "shortest only"),
                *((f"--local-sgd 2 --batch-norm {policy}", "local or average")
                  for policy in ("broadcast", "synchronised")),
                ("--batch-norm global", "global"), ("--missing all", "all"), ("--uneven no", "no")):
            with self.subTest(options=options):
                job = self.run_on(0, *options.split())
                self.assertEqual((job.returncode, job.stdout), (2, ""))
                self.assertRegex(job.stderr, rf"\Aerror: [^\n]*{part}[^\n]*\n\Z")
        for options, part in (("--logical-replicas 3", "power of two"), ("--predivide 0", "predivide"),
                              ("--clip -1", "norm"), ("--top-k 0.7", "fraction")):
            with self.subTest(options=options):
                job = self.run_on(0, *options.split())
                self.assertEqual((job.returncode, job.stdout), (1, ""))
                self.assertRegex(job.stderr, rf"\Aerror: [^\n]*{part}[^\n]*\n\Z")
        self.assertFalse(self.out.exists())


report.main()
