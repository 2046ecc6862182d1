"""Checks what the shared library exports: what its public headers declare, and nothing else."""

import pathlib
import re
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "testing"))
import report

LIBRARY = sys.argv.pop(1)
# Functions and data, and what the compiler adds to classes: vtables and type information, thunks, guards.
OURS = re.compile(r"lockstep_\w+$|_Z(N|T[VTIS]N|Th[\dn]+_N|Tv[\dn]+_[\dn]+_N|GVN)K?8lockstep")
ADDED = re.compile(r"^(vtable|VTT|typeinfo|typeinfo name|guard variable) for |^(non-)?virtual thunk to ")
EXPECTED = {
    "lockstep::version()",
    "lockstep::Communicator::barrier() const",
    "void lockstep::Communicator::all_reduce<double>(std::span<double, 18446744073709551615ul>, "
    "lockstep::ReduceOp) const",
    "lockstep::SharedBuffer<float>::test()",
    "vtable for lockstep::nn::Module",
}


def run(*command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def qualified_name(symbol):
    """The names in lockstep::Tensor::span of "std::span<float, …> lockstep::Tensor::span<float>()"."""
    text = re.sub(r"operator\b(?: .*|\(\)|[^\w(]+)", "operator", ADDED.sub("", symbol))
    text = text.replace("[abi:cxx11]", "")
    pattern = re.compile(r"<[^<>]*>")
    while pattern.search(text):
        text = pattern.sub("", text)
    return text.split("(")[0].split()[-1].replace("~", "").split("::")


class Exports(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.mangled = [line.split()[0] for line in
                       run("nm", "--dynamic", "--defined-only", "--format=posix", LIBRARY).splitlines()]
        cls.symbols = run("c++filt", input="\n".join(cls.mangled)).splitlines()
        headers = "\n".join(re.sub(r"//.*", "", path.read_text())
                            for path in (ROOT / "include").rglob("*.h*"))
        cls.public = set(re.findall(r"\w+", headers))
        cls.internal = set(re.findall(r'\[\[gnu::visibility\("hidden"\)\]\] (\w+);', headers))

    def test_nothing_of_other_libraries_is_exported(self):
        wrong = [symbol for name, symbol in zip(self.mangled, self.symbols) if not OURS.match(name)]
        self.assertEqual(wrong[:10], [])

    def test_nothing_that_is_internal_is_exported(self):
        self.assertIn("Calls", self.internal)
        self.assertNotIn("kernels", self.public)
        wrong = [symbol for symbol in self.symbols
                 if set(qualified_name(symbol)) & self.internal
                 or not set(qualified_name(symbol)) <= self.public]
        self.assertEqual(wrong[:10], [])

    def test_the_type_of_each_exception_is_exported(self):
        text = (ROOT / "include/lockstep/core/error.hpp").read_text()
        errors = re.findall(r"^class (\w+) :", text, re.MULTILINE)
        self.assertIn("MpiError", errors)
        for error in errors:
            self.assertIn(f"typeinfo for lockstep::{error}", self.symbols)

    def test_functions_classes_and_instances_of_templates_are_exported(self):
        self.assertLessEqual(EXPECTED, set(self.symbols))

    def test_of_mpi_it_uses_only_what_the_tests_of_resources_watch(self):
        undefined = run("nm", "--dynamic", "--undefined-only", "--format=posix", LIBRARY)
        used = set(re.findall(r"^(MPI_\w+)", undefined, re.MULTILINE))
        watched = set(re.findall(r"^int (MPI_\w+)\(",
                                 (ROOT / "tests/comm/mpi_counts.hpp").read_text(), re.MULTILINE))
        self.assertIn("MPI_Comm_idup", used & watched)
        # What takes no communicator, and makes nothing; and what Environment alone calls.
        harmless = {"MPI_Initialized", "MPI_Finalized", "MPI_Init_thread", "MPI_Query_thread", "MPI_Is_thread_main",
                    "MPI_Error_string", "MPI_Get_count", "MPI_Cancel", "MPI_Comm_f2c", "MPI_Abort",
                    "MPI_Group_translate_ranks"}
        self.assertEqual(used - watched - harmless, set())


report.main()
