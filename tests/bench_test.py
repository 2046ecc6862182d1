"""Tests of what measures and reports in bench/, with programs that answer given numbers."""

import contextlib
import io
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest
import unittest.mock
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests" / "testing")]
import driver
import peer
import picture
import report

# Answers the runs of each case by a list of its own, and notes in a file who was asked.
FAKE = """
import json, sys
name, answers = sys.argv[1], json.load(open(sys.argv[2]))
for line in sys.stdin:
    if line == "version\\n":
        print(json.dumps({"version": name + " 1.0"}), flush=True)
        continue
    run, case, seconds = line.split()
    with open(sys.argv[3], "a") as asked:
        asked.write(f"{name} {case} {seconds}\\n")
    answer = answers[case].pop(0)
    if answer is None:
        sys.exit("out of order")
    print(answer if isinstance(answer, str) else json.dumps(answer), flush=True)
"""


def value(number, **peer):
    return {"value": number, **peer}


class Driver(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="lockstep-"))
        self.addCleanup(shutil.rmtree, self.root)
        self.asked = self.root / "asked"
        self.progress = ""
        self.versions = []

    def add(self, name, rows, **programs):
        """Makes a benchmark. Each program is its answers: a dict from case to list."""
        folder = self.root / "bench" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "fake.py").write_text(FAKE)
        lines = [f"rows = [{', '.join(rows)}]", "[programs]"]
        for program, answers in programs.items():
            (folder / f"{program}.json").write_text(json.dumps(answers))
            lines.append(f"{program} = ['{{python}}', '{{folder}}/fake.py', '{program}',"
                         f" '{{folder}}/{program}.json', '{self.asked}']")
        (folder / "bench.toml").write_text("\n".join(lines) + "\n")

    def measure(self, rounds=3):
        def note(text):
            self.progress += text

        return [row for benchmark in driver.find(self.root)
                for row in driver.measure(benchmark, rounds, 0.25, self.versions, note)]

    def assert_fails(self, *messages):
        with self.assertRaises(driver.BenchError) as raised:
            self.measure()
        for message in messages:
            self.assertIn(message, str(raised.exception))

    def test_a_row_has_medians_and_the_median_of_the_ratios_of_rounds(self):
        self.add("step", ["{case = 'a', unit = 'ms', peer = 'torch', goal = 2}"],
                 ours={"a": [value(1), value(2), value(4)]},
                 torch={"a": [value(10), value(2), value(12)]})
        self.assertEqual(self.measure(), [
            {"name": "step", "case": "a", "unit": "ms", "ours": 2, "peer": 10, "peer_name": "torch",
             "ratio": 3, "goal": 2}])

    def test_of_a_rate_more_is_better(self):
        self.add("step", ["{case = 'a', unit = 'GB/s', peer = 'torch'}"],
                 ours={"a": [value(30)]}, torch={"a": [value(10)]})
        row, = self.measure(rounds=1)
        self.assertEqual(list(row), driver.KEYS)
        self.assertEqual((row["ratio"], row["goal"]), (3, None))

    def test_a_program_may_measure_the_peer_itself(self):
        self.add("step", ["{case = 'a', unit = 'GB/s', peer = 'triad'}"],
                 ours={"a": [value(30, peer=40), value(10, peer=20)]})
        row, = self.measure(rounds=2)
        self.assertEqual((row["ours"], row["peer"], row["peer_name"], row["ratio"]),
                         (20, 30, "triad", 0.625))

    def test_programs_take_turns_and_swap_places_each_round(self):
        self.add("step", ["{case = 'a', unit = 'ms', peer = 'torch'}"],
                 ours={"a": [value(1)] * 3}, torch={"a": [value(1)] * 3})
        self.measure()
        self.assertEqual([line.split() for line in self.asked.read_text().splitlines()],
                         [[program, "a", "0.25"]
                          for program in ["ours", "torch", "torch", "ours", "ours", "torch"]])

    def test_tells_which_case_and_round_it_is_at_and_what_it_measures(self):
        self.add("step", ["{case = 'a', unit = 'ms', peer = 'torch'}",
                          "{case = 'b', unit = 'ms', peer = 'torch'}"],
                 ours={"a": [value(1)] * 3, "b": [value(1)] * 3},
                 torch={"a": [value(1)] * 3, "b": [value(1)] * 3})
        self.measure()
        self.assertIn("step 2/2 b: round 1 2 3 of 3", self.progress)
        self.assertEqual(self.versions, ["ours 1.0", "torch 1.0"])

    def test_a_program_that_dies_is_an_error_with_its_status_and_stderr(self):
        self.add("step", ["{case = 'a', unit = 'ms', peer = 'torch'}"],
                 ours={"a": [value(1)] * 3}, torch={"a": [value(1), None]})
        self.assert_fails("step: torch ended with status 1 at 'run a 0.25'", "out of order")

    def test_quick_has_the_rows_that_say_so_unless_a_benchmark_is_named(self):
        self.add("step", ["{case = 'a', quick = true}", "{case = 'b'}"])
        self.add("layers", ["{case = 'c'}"])
        cases = lambda *names, quick: [[row["case"] for row in benchmark.rows]
                                       for benchmark in driver.find(self.root, names, quick)]
        self.assertEqual(cases(quick=False), [["c"], ["a", "b"]])
        self.assertEqual(cases(quick=True), [[], ["a"]])
        self.assertEqual(cases("step", quick=True), [["a", "b"]])

    def test_rows_before_a_failure_are_kept(self):
        self.add("step", ["{case = 'a', unit = 'ms', peer = 'limit'}",
                          "{case = 'b', unit = 'ms', peer = 'limit'}"],
                 ours={"a": [value(1, peer=1)] * 3, "b": [None]})
        benchmark, = driver.find(self.root)
        rows = driver.measure(benchmark, 3, 0.25, [], lambda text: None)
        self.assertEqual(next(rows)["case"], "a")
        with self.assertRaises(driver.BenchError):
            next(rows)

    def test_a_program_that_is_not_there_is_an_error(self):
        self.add("step", ["{case = 'a', unit = 'ms', peer = 'torch'}"], ours={})
        description = self.root / "bench" / "step" / "bench.toml"
        description.write_text(description.read_text() + "torch = ['{folder}/missing']")
        self.assert_fails("step: torch did not start", "missing")

    def test_an_answer_that_is_no_measurement_is_an_error(self):
        for answer, message in [("hello", "'hello', which is not JSON"), ({}, "a positive 'value'"),
                                (value(0), "a positive 'value'"), (value(1), "a positive 'peer'")]:
            with self.subTest(answer):
                self.add("step", ["{case = 'a', unit = 'ms', peer = 'limit'}"], ours={"a": [answer]})
                self.assert_fails(message)

    def test_an_unknown_name_is_an_error_that_lists_those_there_are(self):
        self.add("one", [], ours={})
        self.add("two", [], ours={})
        with self.assertRaisesRegex(driver.BenchError, "three.*: one, two"):
            driver.find(self.root, ["one", "three"])
        self.assertEqual([found.name for found in driver.find(self.root, ["two", "two"])], ["two"])

    def test_programs_are_told_where_to_write_files_and_whether_less_will_do(self):
        self.add("files", [], ours={})
        description = self.root / "bench" / "files" / "bench.toml"
        description.write_text("rows = []\n[programs]\nours = ['{scratch}', '{extent}']\n")
        with unittest.mock.patch.dict("os.environ", {"LOCKSTEP_BENCH_FOLDER": ""}):
            benchmark, = driver.find(self.root)
            self.assertEqual(benchmark.commands["ours"], [str(self.root / driver.BUILD), "full"])
        with unittest.mock.patch.dict("os.environ", {"LOCKSTEP_BENCH_FOLDER": "/disk"}):
            benchmark, = driver.find(self.root, quick=True)
            self.assertEqual(benchmark.commands["ours"], ["/disk", "quick"])

    def test_the_table_aligns_its_columns(self):
        rows = [dict(zip(driver.KEYS, ["step", "a", "ms", 1234.5, 0.0123456, "torch", 2.0, 5])),
                dict(zip(driver.KEYS, ["step", "long", "GB/s", 99.96, 1.5, "triad", 0.85, None]))]
        self.assertEqual(driver.table(rows).splitlines(), [
            "| name | case | unit | ours |   peer | peer_name | ratio | goal |",
            "| ---- | ---- | ---- | ---: | -----: | --------- | ----: | ---: |",
            "| step | a    | ms   | 1234 | 0.0123 | torch     |  2.00 |    5 |",
            "| step | long | GB/s |  100 |   1.50 | triad     | 0.850 |      |"])

    def test_the_picture_has_a_bar_from_1_to_each_ratio_and_a_tick_at_its_goal(self):
        rows = [dict(zip(driver.KEYS, ["step", name, "ms", 1, 2, "torch", ratio, goal]))
                for name, ratio, goal in [("<a>", 4, 2), ("b", 0.5, None), ("c", 2, 4), ("d", 1000, None)]]
        image = xml.etree.ElementTree.fromstring(picture.draw(rows, "a machine"))
        space = "{http://www.w3.org/2000/svg}"
        bars = [(float(bar.get("x")), float(bar.get("width")), bar.get("fill"))
                for bar in image.findall(f"{space}rect")[1:]]
        words = [text.text for text in image.findall(f"{space}text")]
        at = {text.text: float(text.get("x")) for text in image.findall(f"{space}text") if text.text.endswith("×")}
        goals = [float(line.get("x1")) for line in image.findall(f"{space}line") if line.get("stroke-width")]
        one, step = at["1×"], at["2×"] - at["1×"]
        for (begin, width, colour), (left, right, reached) in zip(
                bars, [(0, 2, True), (-1, 0, False), (0, 1, False), (0, 8, True)], strict=True):
            self.assertAlmostEqual(begin, one + left * step, delta=0.2)
            self.assertAlmostEqual(begin + width, one + right * step, delta=0.2)
            self.assertEqual(colour, picture.REACHED if reached else picture.MISSED)
        for goal, tick in zip(goals, (1, 2), strict=True):
            self.assertAlmostEqual(goal, one + tick * step, delta=0.2)
        for text in "step <a>", "4.00× torch", "0.500× torch", "1000× torch", "a machine":
            self.assertIn(text, words)


class Peer(unittest.TestCase):
    def serve(self, **options):
        """The answers to three runs of two cases, and what was done for them."""
        done = []
        def case(name):
            def set_up():
                done.append(name)
                return lambda seconds: done.append(seconds) or 2 * seconds
            return set_up
        with contextlib.redirect_stdout(io.StringIO()) as answers:
            peer.serve("peer 1.0", {name: case(name) for name in "ab"},
                       ["version\n", "run a 1\n", "run a 2\n", "run b 3\n"], **options)
        return [json.loads(line) for line in answers.getvalue().splitlines()], done

    def test_a_case_is_set_up_when_it_is_first_asked_for(self):
        answers, done = self.serve()
        self.assertEqual(answers, [{"version": "peer 1.0"}, value(2), value(4), value(6)])
        self.assertEqual(done, ["a", 1, 2, "b", 3])

    def test_of_several_ranks_those_that_do_not_answer_take_part(self):
        answers, done = self.serve(answers=False)
        self.assertEqual((answers, done), ([], ["a", 1, 2, "b", 3]))


class Command(unittest.TestCase):
    def run_bench(self, *arguments):
        return subprocess.run([ROOT / "scripts" / "bench", *arguments],
                              capture_output=True, text=True, timeout=60)

    def test_help_lists_the_benchmarks(self):
        job = self.run_bench("--help")
        self.assertEqual((job.returncode, job.stderr), (0, ""))
        self.assertRegex(job.stdout, r"benchmarks: .*\boptimizer_step\b")

    def test_bad_input_is_refused_before_anything_is_built(self):
        job = self.run_bench("optimiser_step")
        self.assertEqual((job.returncode, job.stdout), (1, ""))
        self.assertRegex(job.stderr, r"called optimiser_step; there are: .*\boptimizer_step\b")
        for option in "--json", "--picture":
            job = self.run_bench(option, "no/such/folder/file")
            self.assertEqual((job.returncode, job.stdout), (2, ""))
            self.assertIn("no folder no/such/folder", job.stderr)


report.main()
