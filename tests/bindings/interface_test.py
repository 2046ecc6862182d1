"""What no compiler checks of the C interface: that every call of it is tested, and that its headers are C
without a word of C++."""

import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "testing"))
import report

COMPILER = sys.argv.pop().split()
HEADERS = sorted((ROOT / "include/lockstep/bindings").glob("*.h"))
CALL = re.compile(r"LOCKSTEP_(?:CALL lockstep_status|TEXT [a-z ]+\*?)\s*(lockstep_\w+)\(")


def calls():
    return [call for header in HEADERS for call in CALL.findall(header.read_text())]


class Interface(unittest.TestCase):
    def test_every_call_is_used_by_a_test_in_c(self):
        tests = "".join(path.read_text() for path in sorted((ROOT / "tests/bindings").glob("*.c")))
        self.assertGreater(len(calls()), 70)
        self.assertEqual([], [call for call in calls() if f"{call}(" not in tests])

    def test_every_header_is_a_part_of_the_one_to_include(self):
        text = (ROOT / "include/lockstep.h").read_text()
        self.assertEqual([], [path.name for path in HEADERS if f'"lockstep/bindings/{path.name}"' not in text])

    def test_every_header_compiles_by_itself_as_strict_c(self):
        with tempfile.TemporaryDirectory() as folder:
            for header in [*HEADERS, ROOT / "include/lockstep.h"]:
                source = pathlib.Path(folder) / "alone.c"
                source.write_text(f'#include "{header.relative_to(ROOT / "include")}"\nint unused;\n')
                done = subprocess.run([*COMPILER, "-std=c99", "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic",
                                       "-Werror", f"-I{ROOT / 'include'}", source], capture_output=True, text=True)
                self.assertEqual((0, ""), (done.returncode, done.stderr), header.name)

    def test_a_status_that_is_dropped_is_a_warning(self):
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder) / "drops.c"
            source.write_text('#include <lockstep.h>\nvoid drop(void) { lockstep_free(NULL); }\n')
            done = subprocess.run([*COMPILER, "-c", "-o", "/dev/null", f"-I{ROOT / 'include'}", source],
                                  capture_output=True, text=True)
            self.assertIn("-Wunused-result", done.stderr)


report.main()
