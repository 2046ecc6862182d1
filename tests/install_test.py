"""Installs the build into an empty folder, and uses it from there as a project would that knows
lockstep by pkg-config or by CMake alone."""

import gzip
import math
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "testing"))
import report
from installation import Installation, run

# After the first two, LANGUAGE=COMPILER: as CMake calls it, and what the compiler needs besides, such as a
# sanitizer.
LAUNCH, BUILD = sys.argv[1:3]
COMPILERS = {language: command.split()
             for language, command in (argument.split("=", 1) for argument in sys.argv[3:])}
del sys.argv[1:]
STANDARD = {"C": ["-std=c11"], "CXX": ["-std=c++20"]}
COMPILER = [*COMPILERS["CXX"], *STANDARD["CXX"]]
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
# The variable of the environment that tells CMake a compiler.
VARIABLE = {"C": "CC", "CXX": "CXX"}
# Programs of tests/consumer, and how each is linked.
SHARED, STATIC, CMAKE = "pkg-config", "pkg-config --static", "CMake"
CONSUMERS = [
    ("C", "main.c", {SHARED, CMAKE}),
    ("CXX", "main.cpp", {SHARED, STATIC, CMAKE}),
]
ARCHIVE = """
#include <boost/archive/text_iarchive.hpp>
#include <boost/archive/text_oarchive.hpp>
#include <iostream>
#include <lockstep/core/error.hpp>
#include <lockstep/state/serialization.hpp>
#include <sstream>

int main() {
  lockstep::StateDict saved, loaded;
  saved["weight"] = lockstep::Tensor::full({2, 3}, 4);
  std::stringstream first, second;
  boost::archive::text_oarchive(first) & saved;
  boost::archive::text_iarchive(first) & loaded;
  boost::archive::text_oarchive(second) & loaded;
  std::cout << (first.str() == second.str() ? "equal" : "different") << std::endl;
  try {
    lockstep::Tensor::full({2}, 1).reshape({3});
  } catch (const lockstep::ShapeError&) {
    std::cout << "ShapeError" << std::endl;
  }
}
"""


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="lockstep-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        installation = Installation(BUILD, cls.folder)
        cls.prefix, cls.libraries = installation.prefix, installation.libraries
        cls.environment = installation.environment
        cls.path = f"{cls.libraries}:{os.environ.get('LD_LIBRARY_PATH', '')}"
        cls.version = run("pkg-config", "--modversion", "lockstep", env=cls.environment).strip()
        cls.project = cls.folder / "consumer"
        shutil.copytree(ROOT / "tests" / "consumer", cls.project)

    @classmethod
    def flags(cls, *options):
        return run("pkg-config", *options, "lockstep", env=cls.environment).split()

    def check_program(self, program, **environment):
        losses = []
        for ranks in 1, 2:
            output = run(LAUNCH, "-n", ranks, program, env={**os.environ, **environment})
            match = re.fullmatch(rf"{ranks} ranks: loss ([\d.]+)\n", output)
            self.assertTrue(match, output)
            losses.append(float(match[1]))
        self.assertAlmostEqual(losses[0], losses[1], delta=2e-5)

    def for_consumers(self, how, check):
        for language, source, ways in CONSUMERS:
            if how in ways:
                with self.subTest(source=source):
                    check(language, self.project / source)

    def compile(self, language, source, program, *flags):
        run(*COMPILERS[language], *STANDARD[language], *WARNINGS, source, "-o", program, *flags)

    def check_shared(self, program, libraries, **environment):
        interface = re.match(r"0\.\d+|\d+", self.version)[0]
        linked = run("ldd", program, env={**os.environ, **environment})
        self.assertIn(f"liblockstep.so.{interface} => {libraries}/liblockstep.so.{interface} ", linked)
        self.check_program(program, **environment)

    def test_links_with_the_shared_library(self):
        def check(language, source):
            program = self.folder / f"shared-{language}"
            self.compile(language, source, program, *self.flags("--cflags", "--libs"), "-lm")
            self.check_shared(program, self.libraries, LD_LIBRARY_PATH=self.path)

        self.for_consumers(SHARED, check)

    def test_links_with_the_static_library(self):
        libraries = self.folder / "libraries"
        libraries.mkdir()
        shutil.copy(self.libraries / "liblockstep.a", libraries)
        flags = [flag for flag in self.flags("--static", "--cflags", "--libs")
                 if flag != f"-L{self.libraries}"]

        def check(language, source):
            program = self.folder / f"static-{language}"
            self.compile(language, source, program, "-L", libraries, *flags)
            self.assertNotIn("liblockstep", run("ldd", program))
            self.check_program(program)

        self.for_consumers(STATIC, check)

    def test_cmake_finds_it_in_a_prefix_that_was_moved(self):
        moved = self.folder / "moved prefix"
        shutil.copytree(self.prefix, moved, symlinks=True)

        def check(language, source):
            build = self.folder / f"cmake-{language}"
            run("cmake", "-G", "Ninja", "-S", self.project, "-B", build, f"-DLANGUAGE={language}",
                f"-DSOURCE={source.name}", f"-DCMAKE_{language}_FLAGS={' '.join(WARNINGS)}",
                f"-DCMAKE_PREFIX_PATH={moved}",
                env={**os.environ, VARIABLE[language]: " ".join(COMPILERS[language])})
            run("cmake", "--build", build)
            self.check_shared(build / "consumer", moved / self.libraries.relative_to(self.prefix))

        self.for_consumers(CMAKE, check)

    def find_package(self, request):
        """What CMake says to a project that asks for this version, and whether it has found one."""
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        (folder / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.20)\nproject(request LANGUAGES NONE)\n"
            f"find_package(lockstep {request} REQUIRED)\n")
        job = subprocess.run(
            ["cmake", "-G", "Ninja", "-S", folder, "-B", folder / "build",
             f"-DCMAKE_PREFIX_PATH={self.prefix}", f"-Dlockstep_DIR={self.prefix / 'lib' / 'cmake' / 'lockstep'}"],
            capture_output=True, text=True, timeout=200)
        return job.stdout + job.stderr, job.returncode == 0

    def test_cmake_takes_requests_for_its_interface(self):
        interface = ".".join(self.version.split(".")[:2])
        for request in "", interface, self.version, f"{self.version} EXACT", f"{interface}...9":
            with self.subTest(request=request):
                said, found = self.find_package(request)
                self.assertTrue(found, said)
                self.assertNotIn("Warning", said)

    def test_cmake_refuses_requests_for_another_interface_and_says_what_there_is(self):
        for request in "9", f"{self.version}.1", "0.0.1", f"0.0.1...<{self.version}":
            with self.subTest(request=request):
                said, found = self.find_package(request)
                self.assertFalse(found)
                said = re.sub(r"\s+", " ", said)
                self.assertIn("that is compatible with requested version", said)
                self.assertIn(f"lockstepConfig.cmake, version: {self.version}", said)

    def test_builds_and_runs_the_program_in_the_readme(self):
        folder = self.folder / "readme"
        folder.mkdir()
        source = re.search(r"```cpp\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
        (folder / "main.cpp").write_text(source)
        count = 130  # the last batch is not full
        for name, extents in ("images.gz", (count, 28, 28)), ("labels.gz", (count,)):
            header = struct.pack(f">HBB{len(extents)}i", 0, 8, len(extents), *extents)
            with gzip.open(folder / name, "wb") as file:
                file.write(header + bytes(i % 10 for i in range(math.prod(extents))))
        self.compile("CXX", folder / "main.cpp", folder / "program", *self.flags("--cflags", "--libs"))
        run(LAUNCH, "-n", 2, folder / "program", cwd=folder,
            env={**os.environ, "LD_LIBRARY_PATH": self.path})
        self.assertTrue((folder / "model.lockstep").exists())

    def test_templates_and_exceptions_work_across_the_shared_library(self):
        source, program = self.folder / "archive.cpp", self.folder / "archive"
        source.write_text(ARCHIVE)
        self.compile("CXX", source, program, *self.flags("--cflags", "--libs"), "-lboost_serialization")
        self.assertEqual(run(program, env={**os.environ, "LD_LIBRARY_PATH": self.path}),
                         "equal\nShapeError\n")

    def test_needs_nothing_beside_mpi_to_link_with_the_shared_library(self):
        needed = run("pkg-config", "--print-requires", "lockstep", env=self.environment).split()
        mpi = "mpich" if os.environ.get("LOCKSTEP_MPI") == "mpich" else "ompi"
        self.assertEqual(needed, [mpi])
        libraries = run("pkg-config", "--libs-only-l", mpi).split()
        self.assertLessEqual({flag for flag in self.flags("--libs") if flag.startswith("-l")},
                             {"-llockstep", *libraries})

    def test_installs_libraries_headers_their_description_and_the_command_with_its_manual_alone(self):
        found = {str(path.relative_to(self.prefix)) for path in self.prefix.rglob("*")
                 if not path.is_dir()}
        libraries = str(self.libraries.relative_to(self.prefix))
        headers = {str(path.relative_to(ROOT)) for path in (ROOT / "include").rglob("*.h*")}
        self.assertLessEqual(headers, found)
        # What is for Fortran is a matter of bindings/fortran_test.py.
        others = {re.sub(r"\.so.*", ".so", path) for path in found - headers if "fortran" not in path}
        self.assertEqual(others, {f"{libraries}/liblockstep.so", f"{libraries}/liblockstep.a",
                                  f"{libraries}/pkgconfig/lockstep.pc",
                                  f"{libraries}/liblockstep-testing.a",
                                  f"{libraries}/pkgconfig/lockstep-testing.pc",
                                  "lib/cmake/lockstep/lockstepConfig.cmake",
                                  "lib/cmake/lockstep/lockstepTesting.cmake",
                                  "lib/cmake/lockstep/lockstepConfigVersion.cmake",
                                  "bin/lockstep", "share/man/man1/lockstep.1"})

    def test_the_installed_command_tells_the_version_of_the_library(self):
        self.assertEqual(run(self.prefix / "bin" / "lockstep", "--version"), f"lockstep {self.version}\n")

    def test_the_headers_draw_in_no_other_library_than_mpi(self):
        rule = run(*COMPILER, "-M", "-x", "c++", "-",
                   *self.flags("--cflags"), input="#include <lockstep/lockstep.hpp>\n")
        self.assertIn("lockstep/nn/layers.hpp", rule)
        self.assertNotRegex(rule, r"(?i)/(eigen|eigen3|boost|fmt|nlohmann|xxhash|zlib)[/.]")


report.main()
