"""lockstep report as its users see it: what the command says and writes, and what a browser makes of
the page."""

import csv
import html.parser
import itertools
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "testing"), str(ROOT / "tests" / "tools")]
import browser
import report

LAUNCH, TOOL, EXAMPLE = sys.argv[1:4]
del sys.argv[1:4]
TOOL = str(pathlib.Path(TOOL).resolve())
IMAGES = pathlib.Path("/usr/share/datasets/fashion-mnist")
SECTIONS = ["summary", "curves", "learning-rate", "throughput", "waiting", "timeline"]


def write_metrics(folder, records):
    lines = [{"schema": "lockstep.metrics", "version": 2}, *records]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def records_of_a_run(ranks, steps=100):
    """With a wave on each curve, so that all of them have some height."""
    for step in range(1, steps + 1):
        wave = math.sin(step)
        yield {"split": "train", "step": step, "epoch": step / 50, "loss": 2 / step + 0.01 * wave,
               "accuracy": 1 - 0.9 / step, "lr": 1e-3 * (1 - step / steps), "samples_per_second": 5e4 + 1e3 * wave,
               "waiting": [0.1 + 0.05 * math.sin(step + rank) for rank in range(ranks)], "gradient norm": 1 + wave}
        if step % 50 == 0:
            yield {"split": "test", "step": step, "epoch": step / 50, "loss": 2.5 / step, "accuracy": 1 - 1 / step}


def write_timeline(path, ranks, steps=30, buckets=3):
    """As a program that was killed leaves it: without its end."""
    events, numbers = [], itertools.count()
    for begin, rank in itertools.product(range(0, 100 * steps, 100), range(ranks)):
        def event(name, phase, time, **more):
            events.append({"name": name, "ph": phase, "ts": begin + time, "pid": rank, **more})
        for name, first, last in (("forward", 0, 30), ("backward", 30, 80), ("wait", 72, 79), ("step", 80, 100)):
            event(name, "X", first, dur=last - first)
        for i in range(buckets):
            number = {"local": str(next(numbers))}
            event(f"bucket {i}", "b", 35 + 4 * i, id2=number)
            event(f"bucket {i}", "e", 55 + 6 * i, id2=number)
    path.write_text("[\n" + ",\n".join(map(json.dumps, events)) + ",\n")


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="lockstep-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.run_folder = self.folder / "my run"
        self.run_folder.mkdir()
        self.page = self.run_folder / "report.html"

    def tool(self, *arguments):
        return subprocess.run([TOOL, *map(str, arguments)], capture_output=True, text=True, timeout=60,
                              cwd=self.folder)

    def make(self, *options):
        job = self.tool("report", self.run_folder, *options)
        self.assertEqual((job.returncode, job.stderr), (0, ""))
        return job.stdout

    def make_whole_run(self, ranks):
        write_metrics(self.run_folder, records_of_a_run(ranks))
        write_timeline(self.run_folder / "timeline.json", ranks)
        self.make()


class Command(Case):
    def test_says_what_it_has_written(self):
        write_metrics(self.run_folder, records_of_a_run(2))
        self.assertEqual(self.make(), f"report  {self.page}\n")
        out, table = self.folder / "page.html", self.folder / "table.csv"
        self.assertEqual(self.make("--out", out, "--csv", table), f"report  {out}\ncsv     {table}\n")
        self.assertEqual(out.read_bytes(), self.page.read_bytes())

    def test_writes_a_csv_that_others_read(self):
        records = [*records_of_a_run(2), {"note": 'a "b", c\nd', "step": 1000, "loss": None}]
        write_metrics(self.run_folder, records)
        table = self.folder / "table.csv"
        self.make("--csv", table)
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        self.assertEqual(list(rows[0]), ["split", "step", "epoch", "loss", "accuracy", "lr", "samples_per_second",
                                         "waiting.0", "waiting.1", "gradient norm", "note"])
        self.assertEqual(len(rows), len(records))
        for row, record in zip(rows, records):
            for name, text in row.items():
                stem, _, element = name.partition(".")
                value = record.get(stem)
                value = value[int(element)] if element and value else value
                if isinstance(value, (int, float)):
                    self.assertEqual(float(text), value)
                else:
                    self.assertEqual(text, value or "")

    def test_explains_itself(self):
        for arguments, parts in ((["--help"], ["report"]), (["report", "--help"], ["RUN", "--out", "--timeline", "--csv"])):
            job = self.tool(*arguments)
            self.assertEqual((job.returncode, job.stderr), (0, ""))
            for part in parts:
                self.assertIn(part, job.stdout)
        job = self.tool("--version")
        self.assertEqual(job.returncode, 0)
        self.assertRegex(job.stdout, r"\Alockstep \d+\.\d+\.\d+\n\Z")

    def test_ends_with_status_2_where_it_is_not_understood(self):
        for arguments in [], ["paint"], ["report"], ["report", self.run_folder, "--turbo"], ["report", "a", "b"], \
                ["report", self.run_folder, "--csv"], ["--turbo"]:
            job = self.tool(*arguments)
            self.assertEqual((job.returncode, job.stdout), (2, ""), arguments)
            self.assertRegex(job.stderr, r"\Aerror: [^\n]+ \(try --help\)\n\Z")

    def test_ends_with_status_1_and_says_what_is_wrong(self):
        def refused(*parts, options=(), run=self.run_folder):
            job = self.tool("report", run, *options)
            self.assertEqual((job.returncode, job.stdout), (1, ""))
            self.assertRegex(job.stderr, r"\Aerror: [^\n]+\n\Z")
            for part in parts:
                self.assertIn(str(part), job.stderr)
            self.assertFalse(self.page.exists())

        refused(self.folder / "none", "found nothing", run=self.folder / "none")
        refused(self.run_folder / "metrics.jsonl", "No such file")
        write_metrics(self.run_folder, records_of_a_run(2, steps=5))
        log = self.run_folder / "metrics.jsonl"
        refused(log, "found a file", run=log)
        refused(self.folder / "none.json", "No such file", options=["--timeline", self.folder / "none.json"])
        refused(self.folder / "none", "No such file", options=["--out", self.folder / "none" / "page.html"])
        timeline = self.run_folder / "timeline.json"
        timeline.write_text('[\n{"ph": "X"},\n')
        refused(timeline, "no timeline")
        timeline.unlink()
        whole = log.read_text()
        log.write_text(whole.replace('"step": 3', '"step": three'))
        refused(log, "line 4")
        log.write_text(whole.replace('"version": 2', '"version": 9'))
        refused(log, "version", "9")


class Page(html.parser.HTMLParser):
    """What a page could load or run."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}


class SelfContained(Case):
    def test_the_page_loads_and_runs_nothing(self):
        self.make_whole_run(2)
        text = self.page.read_text()
        page = Page(text)
        self.assertIn("svg", page.tags)
        self.assertFalse(page.tags & {"script", "link", "img", "iframe", "object", "embed", "base", "image", "use"})
        self.assertFalse({name for name in page.attributes if name.startswith("on")})
        self.assertFalse(page.attributes & {"src", "href", "xlink:href", "srcset", "data", "action"})
        self.assertNotRegex(text, r"url\(|@import")
        self.assertEqual(set(re.findall(r"https?://[^\"' ]*", text)), {"http://www.w3.org/2000/svg"})

    def test_the_page_stays_small(self):
        write_metrics(self.run_folder, records_of_a_run(32, steps=20000))
        write_timeline(self.run_folder / "timeline.json", ranks=32, steps=300)
        self.make()
        self.assertLess(self.page.stat().st_size, 2_000_000)


@unittest.skipUnless(browser.PROGRAM, "chromium is missing: scripts/packages test installs it")
class InABrowser(Case):
    @classmethod
    def setUpClass(cls):
        cls.browser = browser.Browser()
        cls.addClassCleanup(cls.browser.close)

    def open(self, width, dark=False):
        self.browser.open(self.page, width, dark=dark)
        self.assertEqual(self.browser.complaints, [])
        self.assertEqual(self.browser.requests, [self.page.resolve().as_uri()])

    def check_layout(self):
        """That nothing is wider than the window, and each picture has something in it to see."""
        for width in 1280, 400:
            with self.subTest(width=width):
                self.open(width)
                self.assertEqual(self.browser.evaluate("document.documentElement.scrollWidth"), width)
                self.assertGreater(self.browser.evaluate("document.documentElement.scrollHeight"), 500)
                pictures = self.browser.evaluate(
                    "[...document.querySelectorAll('svg')].map(svg => {"
                    "  const box = svg.getBoundingClientRect();"
                    "  const parts = [...svg.querySelectorAll('path[fill=none], circle, rect > title')].map("
                    "      part => (part.tagName == 'title' ? part.parentNode : part).getBoundingClientRect());"
                    "  return {name: svg.closest('figure').ariaLabel, left: box.left, width: box.width,"
                    "          height: box.height, drawn: Math.max(0, ...parts.map(part => part.width + part.height))}})")
                self.assertTrue(pictures)
                for picture in pictures:
                    scrolls = picture["name"] == "timeline"
                    self.assertGreaterEqual(picture["left"], 0, picture)
                    self.assertLessEqual(picture["left"] + (0 if scrolls else picture["width"]), width, picture)
                    self.assertGreater(min(picture["width"], picture["height"]), 60, picture)
                    self.assertGreater(picture["drawn"], 8, picture)
        return [picture["name"] for picture in pictures]

    def text_of(self, section):
        return self.browser.evaluate(f"document.getElementById('{section}').innerText")

    def test_shows_all_sections_of_a_run(self):
        self.make_whole_run(2)
        self.assertEqual(self.check_layout(), ["loss", "accuracy (%)", "gradient norm", "lr", "samples/s",
                                               "% of the time", "timeline"])
        self.assertEqual(self.browser.evaluate("[...document.querySelectorAll('section')].map(one => one.id)"), SECTIONS)
        self.assertEqual(self.browser.evaluate("document.title"), "my run")
        self.assertEqual(self.browser.evaluate("document.querySelector('h1').innerText"), "my run")
        for section, parts in (("summary", ["steps\n100", "epochs\n2", "ranks\n2", "loss\ttrain", "loss\ttest"]),
                               ("curves", ["train", "test", "gradient norm"]), ("waiting", ["rank 0", "rank 1"]),
                               ("timeline", ["rank 1", "waits 7 %", "backward", "last 4 of 30 steps"])):
            for part in parts:
                self.assertIn(part, self.text_of(section))
        self.assertEqual(self.browser.evaluate("document.querySelectorAll('#timeline rect > title').length"), 2 * 4 * 7)

    def test_shows_many_ranks(self):
        self.make_whole_run(64)
        self.check_layout()
        self.assertNotIn("rank", self.text_of("waiting").removeprefix("Waiting by rank"))
        for part in "least", "median", "greatest":
            self.assertIn(part, self.text_of("waiting"))
        self.assertIn("rank 63", self.text_of("timeline"))

    def test_is_light_or_dark_as_the_reader_wants(self):
        self.make_whole_run(2)
        brightness = []
        for dark in False, True:
            self.open(1280, dark=dark)
            for what in "backgroundColor", "color":
                colour = self.browser.evaluate(f"getComputedStyle(document.body).{what}")
                brightness.append(sum(map(int, re.findall(r"\d+", colour)[:3])) / 3)
            brightness.append(self.browser.evaluate("getComputedStyle(document.querySelector('svg')).filter") != "none")
        light_page, light_text, light_filter, dark_page, dark_text, dark_filter = brightness
        self.assertGreater(light_page, 220)
        self.assertLess(light_text, 80)
        self.assertLess(dark_page, 40)
        self.assertGreater(dark_text, 200)
        self.assertEqual((light_filter, dark_filter), (False, True))

    def test_says_what_a_run_has_no_data_for(self):
        write_metrics(self.run_folder, [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}])
        self.make()
        self.assertEqual(self.check_layout(), ["loss"])
        for section, part in (("learning-rate", "no “lr”"), ("throughput", "no “samples_per_second”"),
                              ("waiting", "no “waiting”"), ("timeline", "no timeline")):
            self.assertIn(part, self.text_of(section))

    def test_takes_names_for_names_whatever_is_in_them(self):
        image = "</svg><img src=x onerror=alert(1)>&lt;"
        nasty = f"</title></style><script>document.title='hacked'</script>{image}"
        long = "a_name_without_any_place_to_break_it_" * 10
        write_metrics(self.run_folder, [{nasty: step, "split": nasty, "waiting": [0.1 * step], "text " + nasty: nasty,
                                         long: step, "other": long, "list " + nasty: [step, 2]} for step in (1, 2)])
        (self.run_folder / "timeline.json").write_text(json.dumps(
            [{"name": name, "ph": "X", "ts": 0, "dur": 5, "pid": 0} for name in ("step", image)]))
        self.make()
        # Without its policy the page itself must be harmless too.
        text = self.page.read_text()
        self.page.write_text(re.sub(r"<meta http-equiv[^>]*>", "", text))
        self.assertNotEqual(self.page.read_text(), text)
        self.check_layout()
        self.assertEqual(self.browser.evaluate("document.querySelectorAll('script, img').length"), 0)
        self.assertEqual(self.browser.evaluate("document.title"), "my run")
        self.assertEqual(self.browser.evaluate("document.querySelectorAll('section').length"), len(SECTIONS))
        self.assertEqual(self.browser.evaluate("document.querySelector('#curves figure').ariaLabel"), nasty)
        self.assertIn(f"{image}: 0.005 ms", self.browser.evaluate("document.getElementById('timeline').textContent"))

    def test_notices_complaints_and_requests(self):
        self.page.write_text("<script>console.error('oh')</script><img src='none.png'>")
        self.browser.open(self.page, 400)
        self.assertIn("oh", "".join(self.browser.complaints))
        self.assertEqual(len(self.browser.requests), 2)

    @unittest.skipUnless(EXAMPLE and IMAGES.is_dir(), "the example or its images are missing")
    def test_shows_a_run_of_the_example(self):
        data = self.folder / "data"
        data.mkdir()
        for path in IMAGES.glob("t10k-*"):
            for split in "train", "t10k":
                (data / path.name.replace("t10k", split)).symlink_to(path)
        subprocess.run([LAUNCH, "-n", "2", str(pathlib.Path(EXAMPLE).resolve()), "--epochs", "2", "--batch", "250",
                        "--data", data, "--out", self.run_folder], check=True, capture_output=True, timeout=200,
                       env={**os.environ, "LOCKSTEP_TIMELINE": str(self.run_folder / "timeline.json")})
        self.make()
        self.assertEqual(self.check_layout(), ["loss", "accuracy (%)", "lr", "samples/s", "% of the time", "timeline"])
        for part in "steps\n40", "epochs\n2", "ranks\n2", "samples/s, mean":
            self.assertIn(part, self.text_of("summary"))
        self.assertIn("The last 4 of 40 steps", self.text_of("timeline"))


report.main()
