"""Measures what is in bench/: starts the programs of a benchmark, lets them take turns, and makes rows
of what they answer. README.md explains the protocol."""

import json
import math
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import tomllib

BUILD = "build/release"
KEYS = ["name", "case", "unit", "ours", "peer", "peer_name", "ratio", "goal"]
# Alike for all programs: one thread, and a malloc that keeps what is freed. Page faults in memory that
# it has given back can take ten times as long as what is measured, such as the temporaries of torch.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1",
               "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**62)}
NUMBERS = {"ours", "peer", "ratio", "goal"}


class BenchError(Exception):
    pass


def build(root, install):
    """Whether that succeeded. What it prints goes to stderr, since stdout is for tables."""
    packages = ["scripts/packages", "bench", *([] if install else ["--no-install"])]
    ninja = ["scripts/build", BUILD, "-Dcpu=native", "-Dtests=false", "-Dexamples=true", "-Dbench=true",
             "--", "benchmarks"]
    return all(subprocess.run(command, cwd=root, stdout=sys.stderr).returncode == 0
               for command in (packages, ninja))


class Benchmark:
    """A folder with a bench.toml. Its programs write files to a scratch folder, and less where it is quick."""

    def __init__(self, root, folder, quick=False):
        self.name = folder.name
        description = tomllib.loads((folder / "bench.toml").read_text())
        self.rows = description["rows"]
        build = root / BUILD
        places = {"root": root, "build": build, "folder": folder, "python": sys.executable,
                  "scratch": os.environ.get("LOCKSTEP_BENCH_FOLDER") or build,
                  "extent": "quick" if quick else "full"}
        self.commands = {program: [word.format_map(places) for word in command]
                         for program, command in description["programs"].items()}


def find(root, names=(), quick=False):
    """The benchmarks of those names in the project, or all that are there: where it is quick, with the rows that say so."""
    known = {path.parent.name: path.parent for path in sorted(root.glob("bench/*/bench.toml"))}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BenchError(f"no benchmark is called {', '.join(unknown)}; there are: {', '.join(known)}")
    benchmarks = [Benchmark(root, known[name], quick) for name in dict.fromkeys(names or known)]
    if quick and not names:
        for benchmark in benchmarks:
            benchmark.rows = [row for row in benchmark.rows if row.get("quick")]
    return benchmarks


class Program:
    """A program that answers lines by lines of JSON, from construction to the end of a with."""

    def __init__(self, name, command):
        self.name = name
        self.errors = tempfile.TemporaryFile("w+", errors="replace")
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
                env={**os.environ, **ENVIRONMENT})
        except OSError as error:
            self.errors.close()
            raise BenchError(f"{name} did not start: {error}") from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.process.stdin.close()
            self.process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()

    def ask(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has died, which its answer tells
        answer = self.process.stdout.readline()
        if not answer:
            raise self.died(line)
        try:
            return json.loads(answer)
        except json.JSONDecodeError:
            raise BenchError(f"{self.name} answered '{line}' by '{answer.rstrip()}', which is not JSON") from None

    def died(self, line):
        try:
            status = self.process.wait(10)
        except subprocess.TimeoutExpired:
            return BenchError(f"{self.name} closed its stdout at '{line}'")
        ended = f"ended with status {status}" if status >= 0 else f"was killed by signal {-status}"
        self.errors.seek(0)
        return BenchError(f"{self.name} {ended} at '{line}':\n{self.errors.read().rstrip()}")


def number(program, answer, key):
    value = answer.get(key)
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise BenchError(f"{program.name} answered {answer}, where a positive '{key}' was expected")
    return value


def measure_row(name, row, ours, peer, rounds, seconds, progress):
    """One row. A peer without a program is what our program measures beside its own value."""
    request = f"run {row['case']} {seconds}"
    values, peer_values = [], []
    for i in range(rounds):
        progress(f" {i + 1}")
        answers = {}
        for program in ([ours, peer] if i % 2 == 0 else [peer, ours]):
            if program is not None:
                answers[program] = program.ask(request)
        values.append(number(ours, answers[ours], "value"))
        peer_values.append(number(ours, answers[ours], "peer") if peer is None
                           else number(peer, answers[peer], "value"))
    # A unit by the second is a rate, of which more is better.
    is_rate = row["unit"].endswith("/s")
    ratios = [value / other if is_rate else other / value for value, other in zip(values, peer_values)]
    return {"name": name, "case": row["case"], "unit": row["unit"],
            "ours": statistics.median(values), "peer": statistics.median(peer_values),
            "peer_name": row["peer"], "ratio": statistics.median(ratios), "goal": row.get("goal")}


class Programs:
    """The programs that a row needs, of those of a benchmark: no other runs meanwhile, so that none of
    them takes time from what is measured. For use in a with."""

    def __init__(self, benchmark, versions):
        self.benchmark = benchmark
        self.versions = versions
        self.running = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.keep([])

    def keep(self, names):
        for name in [name for name in self.running if name not in names]:
            self.running.pop(name).__exit__()

    def start(self, names):
        self.keep(names)
        for name in names:
            if name in self.running:
                continue
            program = Program(f"{self.benchmark.name}: {name}", self.benchmark.commands[name])
            self.running[name] = program
            version = program.ask("version")["version"]
            if version not in self.versions:
                self.versions.append(version)
        return self.running


def measure(benchmark, rounds, seconds, versions, progress):
    """Yields the rows of a benchmark, and adds what its programs call themselves to `versions`."""
    with Programs(benchmark, versions) as programs:
        for i, row in enumerate(benchmark.rows):
            progress(f"{benchmark.name} {i + 1}/{len(benchmark.rows)} {row['case']}: round")
            ours = row.get("program", "ours")
            running = programs.start([ours, *(name for name in [row["peer"]] if name in benchmark.commands)])
            result = measure_row(benchmark.name, row, running[ours], running.get(row["peer"]),
                                 rounds, seconds, progress)
            progress(f" of {rounds}, ratio {cell('ratio', result['ratio'])}\n")
            yield result


def cell(key, value):
    if value is None:
        return ""
    if key == "goal":
        return f"{value:g}"
    if key in NUMBERS:
        return f"{value:.0f}" if value >= 99.95 else f"{value:#.3g}"
    return value


def table(rows):
    """The rows as a Markdown table."""
    lines = [KEYS, *([cell(key, row[key]) for key in KEYS] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(KEYS))]
    lines.insert(1, ["-" * (width - 1) + ":" if key in NUMBERS else "-" * width
                     for key, width in zip(KEYS, widths)])
    return "\n".join(
        "| " + " | ".join(text.rjust(width) if key in NUMBERS else text.ljust(width)
                          for key, text, width in zip(KEYS, line, widths)) + " |"
        for line in lines)


def machine():
    """The model of the processor, and how many cores there are to use."""
    model = platform.machine()
    information = pathlib.Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} core{'s' if cores > 1 else ''}"
