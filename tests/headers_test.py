"""Compiles each public header, to see that it includes what it needs, once: headers_test.py COMPILER..."""

import concurrent.futures
import os
import pathlib
import subprocess
import sys
import unittest

INCLUDE = pathlib.Path(__file__).resolve().parents[1] / "include"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "testing"))
import report

COMPILER = sys.argv[1:]
del sys.argv[1:]


def errors_of(header):
    job = subprocess.run([*COMPILER, "-Wall", "-Wextra", "-Werror", "-Wpedantic", "-Wconversion", "-fsyntax-only",
                          "-x", "c++", "-", f"-I{INCLUDE}"],
                         input=f"#include <{header}>\n" * 2, capture_output=True, text=True)
    return job.stderr or ("" if job.returncode == 0 else f"status {job.returncode}")


class Headers(unittest.TestCase):
    def test_each_compiles_alone_and_twice(self):
        headers = sorted(str(path.relative_to(INCLUDE)) for path in INCLUDE.rglob("*.hpp"))
        self.assertGreater(len(headers), 100)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
            for header, errors in zip(headers, threads.map(errors_of, headers)):
                with self.subTest(header=header):
                    self.assertEqual(errors, "")


report.main()
