"""Tests of scripts/timeline, with timelines that are written here."""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "testing"))
import report


def span(rank, name, begin, end):
    return {"ph": "X", "pid": rank, "tid": 0, "name": name, "ts": begin, "dur": end - begin}


def bucket(rank, number, begin, end):
    common = {"pid": rank, "tid": 0, "cat": "bucket", "name": f"bucket {number}", "id2": {"local": f"{rank}.{begin}"}}
    return [{"ph": "b", "ts": begin, **common}, {"ph": "e", "ts": end, **common}]


def step(rank, begin):
    """One of 100 µs, in which two buckets overlap."""
    return [span(rank, "forward", begin, begin + 30), span(rank, "backward", begin + 30, begin + 80),
            *bucket(rank, 0, begin + 40, begin + 70), *bucket(rank, 1, begin + 60, begin + 78),
            span(rank, "wait", begin + 72, begin + 80), span(rank, "step", begin + 80, begin + 100)]


class TimelineScript(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.trace = pathlib.Path(folder.name, "trace.json")
        self.picture = pathlib.Path(folder.name, "picture.svg")
        steps = [event for begin in (0, 100, 200) for rank in (0, 1) for event in step(rank, begin)]
        self.trace.write_text(json.dumps([{"ph": "M", "pid": 0, "name": "process_name"}, *steps]))

    def run_script(self, *options):
        return subprocess.run([ROOT / "scripts" / "timeline", self.trace, self.picture, *options],
                              capture_output=True, text=True, timeout=60)

    def titles(self):
        root = xml.etree.ElementTree.parse(self.picture).getroot()
        return [element.text for element in root.iter() if element.tag.endswith("}title")]

    def bars(self):
        """(row, left, right) of each bar, by what it is."""
        root = xml.etree.ElementTree.parse(self.picture).getroot()
        found = {}
        for bar in root.iter("{http://www.w3.org/2000/svg}rect"):
            title = bar.find("{http://www.w3.org/2000/svg}title")
            if title is not None:
                x, width = float(bar.get("x")), float(bar.get("width"))
                found.setdefault(title.text.split(":")[0], []).append((float(bar.get("y")), x, x + width))
        return found

    def test_draws_the_steps_that_are_asked_for(self):
        self.assertEqual(self.run_script("--steps", "2-3").returncode, 0)
        self.assertEqual(sorted(self.titles()), sorted(
            4 * ["forward: 0.030 ms", "backward: 0.050 ms", "bucket 0: 0.030 ms", "bucket 1: 0.018 ms",
                 "wait: 0.008 ms", "step: 0.020 ms"]))
        self.assertEqual(self.run_script("--steps", "1").returncode, 0)
        self.assertEqual(len(self.titles()), 12)

    def test_has_rows_for_each_rank_and_for_buckets_that_overlap(self):
        self.assertEqual(self.run_script("--steps", "1-1").returncode, 0)
        bars = self.bars()
        self.assertEqual(len({row for row, *_ in bars["forward"]}), 2)
        rows = {row for kind in ("bucket 0", "bucket 1") for row, *_ in bars[kind]}
        self.assertEqual(len(rows), 4)
        for (_, _, forward_end), (_, backward_begin, _) in zip(bars["forward"], bars["backward"]):
            self.assertAlmostEqual(forward_end, backward_begin, delta=0.2)

    def test_reads_what_a_program_that_was_killed_has_left(self):
        whole = self.trace.read_text()
        for rest in ("", "]", ",", "\n"):
            self.trace.write_text(whole.removesuffix("]") + rest)
            self.assertEqual(self.run_script("--steps", "1-2").returncode, 0, rest)

    def test_refuses_what_it_cannot_draw(self):
        def refused(*options):
            result = self.run_script(*options)
            self.assertNotEqual(result.returncode, 0)
            self.assertNotIn("Traceback", result.stderr)
            self.assertFalse(self.picture.exists())
            return result.stderr

        self.assertIn("no steps 3 to 4: rank 0 has made 3", refused())
        self.assertIn("expected --steps A-B, found two", refused("--steps", "two"))
        for text in ("nothing", "{}", "[1", '[{"ph": "X"}]', '[{"ph": "e", "pid": 0, "id2": {"local": 1}}]', ""):
            self.trace.write_text(text)
            self.assertIn("is no timeline", refused(), text)
        self.trace.unlink()
        self.assertIn("No such file", refused())


report.main()
