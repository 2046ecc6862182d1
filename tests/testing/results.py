"""Reads what meson knows of tests, for scripts/test.

results.py names BUILD [WORD...]   the names of the tests that contain one of the words, or have a test file or a test
                                   in it that does
results.py failures LOG            the output of the tests that failed
results.py total LOG...            three numbers: passed, failed, skipped
"""

import json
import pathlib
import re
import subprocess
import sys

MACRO = re.compile(r"^(?:TYPED_)?TEST(?:_F|_P)?\((\w+), (\w+)\)", re.MULTILINE)
LAST_LINE = re.compile(r"(\d+) passed, (\d+) failed, (\d+) skipped")


def read(log):
    path = pathlib.Path(log)
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def counts(test):
    """What the last line of a test program says; one that did not end well has failed once at least."""
    last = test.get("stdout", "").rstrip().rpartition("\n")[2]
    match = LAST_LINE.fullmatch(last)
    passed, failed, skipped = map(int, match.groups()) if match else (0, 0, 0)
    if failed == 0 and (test["result"] != "OK" or not match):
        failed = 1
    return passed, failed, skipped


def introspect(build, what):
    listing = subprocess.run(["meson", "introspect", what, build], capture_output=True, text=True, check=True).stdout
    return json.loads(listing)


def descriptions(sources):
    """Of all tests in the files, as main.cpp has them after the name of the program."""
    for source in map(pathlib.Path, sources):
        for suite, name in MACRO.findall(source.read_text()):
            yield f"{source.parent.name}/{source.name}: {suite}.{name}"


def sources_of(target):
    """Those that the project has, which a unity build includes in files that it makes."""
    for group in target["target_sources"]:
        yield from group["sources"]
        for unit in filter(pathlib.Path.exists, map(pathlib.Path, group["generated_sources"])):
            if "-unity" in unit.name:
                yield from re.findall(r'^#include *[<"](.+)[>"]$', unit.read_text(), re.MULTILINE)


def names(build, *words):
    sources = {target["id"]: list(sources_of(target)) for target in introspect(build, "--targets")}
    for test in introspect(build, "--tests"):
        known = [test["name"]]
        known += descriptions(file for target in test["depends"] for file in sources.get(target, [])
                              if file.endswith("_test.cpp"))
        if not words or any(word in text for word in words for text in known):
            print(test["name"])


def failures(log):
    for test in read(log):
        if counts(test)[1] == 0:
            continue
        print(f"\n== {test['result']}: {test['name']} (status {test['returncode']})")
        print("   " + " ".join(test["command"]))
        for stream in "stdout", "stderr":
            if test.get(stream):
                print(test[stream].rstrip())


def total(*logs):
    passed = failed = skipped = 0
    for log in logs:
        tests = read(log)
        if not tests:
            failed += 1
        for test in tests:
            p, f, s = counts(test)
            passed, failed, skipped = passed + p, failed + f, skipped + s
    print(passed, failed, skipped)


commands = {"names": names, "failures": failures, "total": total}
commands[sys.argv[1]](*sys.argv[2:])
