"""What the Python programs of the benchmarks have in common. README.md explains the protocol."""

import json
import statistics
import sys
import time


def median_time(seconds, call):
    """The median time of a call in seconds, of calls for about that long, after one that does not count."""
    fewest = 3
    call()
    times = []
    start = time.monotonic()
    while len(times) < fewest or time.monotonic() - start < seconds:
        begin = time.monotonic()
        call()
        times.append(time.monotonic() - begin)
    return statistics.median(times)


def serve(version, cases, requests=sys.stdin, answers=True):
    """Answers what the driver asks on stdin, until that is closed. A case is a function that sets it
    up, and returns one that takes seconds and returns a measurement in the unit of the row, or an answer with what it
    measured beside it. A program on several ranks gets the requests on all, and answers on one."""
    current = measure = None
    for line in requests:
        words = line.split()
        if words == ["version"]:
            answer = {"version": version}
        else:
            command, name, seconds = words
            if command != "run" or name not in cases:
                sys.exit(f"expected 'run CASE SECONDS', found '{line.rstrip()}'")
            if name != current:
                measure = None  # the memory of one case at a time
                measure = cases[name]()
                current = name
            measured = measure(float(seconds))
            answer = measured if isinstance(measured, dict) else {"value": measured}
        if answers:
            print(json.dumps(answer), flush=True)
