"""scripts/bench: measures lockstep beside its peers, and prints a Markdown table of medians."""

import argparse
import json
import pathlib
import sys

import driver
import picture

ROOT = pathlib.Path(__file__).resolve().parents[1]


def arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Installs the Debian packages that are missing, builds in build/release, measures what is in\n"
                    "bench/ in turns with its peers, and prints a Markdown table of medians. A ratio above 1\n"
                    "means that lockstep is faster. bench/README.md says more.",
        epilog="benchmarks: " + ", ".join(benchmark.name for benchmark in driver.find(ROOT)))
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmark to run; all where none is given")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, smaller files, and,\nwhere no benchmark is named, some of the rows only")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the rows to this file as well")
    parser.add_argument("--picture", type=pathlib.Path, metavar="FILE", help="draw the ratios as an SVG file")
    parser.add_argument("--no-install", action="store_true", help="install nothing, and say what is missing")
    options = parser.parse_args()
    for file in filter(None, (options.json, options.picture)):
        if not file.absolute().parent.is_dir():
            parser.error(f"there is no folder {file.parent}")
        if file.is_dir():
            parser.error(f"{file} is a folder")
    return options


def progress(text):
    print(text, end="", file=sys.stderr, flush=True)


def main():
    options = arguments()
    try:
        benchmarks = driver.find(ROOT, options.names, options.quick)
    except driver.BenchError as error:
        sys.exit(f"scripts/bench: {error}")
    if not driver.build(ROOT, not options.no_install):
        sys.exit(1)

    rounds, seconds = (3, 0.1) if options.quick else (7, 0.5)
    rows, versions, failure = [], [], None
    try:
        for benchmark in benchmarks:
            for row in driver.measure(benchmark, rounds, seconds, versions, progress):
                rows.append(row)
    except driver.BenchError as error:
        failure = f"\nscripts/bench: {error}"
    except KeyboardInterrupt:
        failure = "\nscripts/bench: interrupted"
    # What was measured before a failure is good.
    if rows:
        print(driver.table(rows))
        foot = f"{driver.machine()}; {'; '.join(versions)}; {rounds} rounds of {seconds:g} s"
        print(f"\n{foot}")
        if options.json:
            options.json.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
        if options.picture:
            options.picture.write_text(picture.draw(rows, foot))
    sys.exit(failure)


main()
