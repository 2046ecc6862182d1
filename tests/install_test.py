"""Installs the build into an empty folder, and uses it from there as a project would that knows
lockstep by pkg-config alone."""

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

# The last argument is the compiler and what it needs besides, such as a sanitizer.
LAUNCH, BUILD, COMPILER = sys.argv[1:4]
del sys.argv[1:4]
COMPILER = COMPILER.split()
WARNINGS = ["-std=c++20", "-Wall", "-Wextra", "-Werror"]


def run(*command, **options):
    job = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                         timeout=200, **options)
    if job.returncode != 0:
        raise AssertionError(f"{command} failed:\n{job.stdout}{job.stderr}")
    return job.stdout


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="lockstep-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        run("meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", cls.folder / "stage")
        description, = cls.folder.rglob("lockstep.pc")
        # The staged tree becomes a prefix of its own.
        text = description.read_text()
        prefix = re.search(r"^prefix=/(.*)$", text, re.MULTILINE)[1]
        cls.prefix = cls.folder / "prefix"
        (cls.folder / "stage" / prefix).rename(cls.prefix)
        description, = cls.folder.rglob("lockstep.pc")
        description.write_text(text.replace(f"prefix=/{prefix}", f"prefix={cls.prefix}"))
        cls.environment = {**os.environ, "PKG_CONFIG_PATH": str(description.parent)}
        cls.libraries = description.parent.parent
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

    def test_links_with_the_shared_library(self):
        program = self.project / "shared"
        run(*COMPILER, *WARNINGS, self.project / "main.cpp", "-o", program,
            *self.flags("--cflags", "--libs"))
        path = f"{self.libraries}:{os.environ.get('LD_LIBRARY_PATH', '')}"
        linked = run("ldd", program, env={**os.environ, "LD_LIBRARY_PATH": path})
        self.assertIn(f"{self.libraries}/liblockstep.so", linked)
        self.check_program(program, LD_LIBRARY_PATH=path)

    def test_links_with_the_static_library(self):
        libraries = self.project / "libraries"
        libraries.mkdir()
        shutil.copy(self.libraries / "liblockstep.a", libraries)
        program = self.project / "static"
        run(*COMPILER, *WARNINGS, self.project / "main.cpp", "-o", program, "-L", libraries,
            *[flag for flag in self.flags("--static", "--cflags", "--libs")
              if flag != f"-L{self.libraries}"])
        self.assertNotIn("liblockstep", run("ldd", program))
        self.check_program(program)

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
        run(*COMPILER, *WARNINGS, folder / "main.cpp", "-o", folder / "program",
            *self.flags("--cflags", "--libs"))
        path = f"{self.libraries}:{os.environ.get('LD_LIBRARY_PATH', '')}"
        run(LAUNCH, "-n", 2, folder / "program", cwd=folder,
            env={**os.environ, "LD_LIBRARY_PATH": path})
        self.assertTrue((folder / "model.lockstep").exists())

    def test_needs_nothing_beside_mpi_to_link_with_the_shared_library(self):
        needed = run("pkg-config", "--print-requires", "lockstep", env=self.environment).split()
        self.assertEqual(needed, ["ompi-cxx"])
        self.assertLessEqual({flag for flag in self.flags("--libs") if flag.startswith("-l")},
                             {"-llockstep", "-lmpi_cxx", "-lmpi"})

    def test_installs_libraries_headers_their_description_and_the_command_with_its_manual_alone(self):
        found = {str(path.relative_to(self.prefix)) for path in self.prefix.rglob("*")
                 if not path.is_dir()}
        libraries = str(self.libraries.relative_to(self.prefix))
        headers = {str(path.relative_to(ROOT)) for path in (ROOT / "include").rglob("*.hpp")}
        self.assertLessEqual(headers, found)
        others = {re.sub(r"\.so.*", ".so", path) for path in found - headers}
        self.assertEqual(others, {f"{libraries}/liblockstep.so", f"{libraries}/liblockstep.a",
                                  f"{libraries}/pkgconfig/lockstep.pc",
                                  f"{libraries}/cmake/lockstep/lockstepConfig.cmake",
                                  f"{libraries}/cmake/lockstep/lockstepConfigVersion.cmake",
                                  "bin/lockstep", "share/man/man1/lockstep.1"})

    def test_the_installed_command_tells_the_version_of_the_library(self):
        version = run("pkg-config", "--modversion", "lockstep", env=self.environment)
        self.assertEqual(run(self.prefix / "bin" / "lockstep", "--version"), f"lockstep {version}")

    def test_the_headers_draw_in_no_other_library_than_mpi(self):
        rule = run(*COMPILER, "-std=c++20", "-M", "-x", "c++", "-",
                   *self.flags("--cflags"), input="#include <lockstep/lockstep.hpp>\n")
        self.assertIn("lockstep/nn/layers.hpp", rule)
        self.assertNotRegex(rule, r"(?i)/(eigen|eigen3|boost|fmt|nlohmann|xxhash|zlib)[/.]")

    def test_each_header_compiles_alone_and_twice(self):
        flags = self.flags("--cflags")
        for header in sorted((self.prefix / "include").rglob("*.hpp")):
            name = header.relative_to(self.prefix / "include")
            with self.subTest(header=str(name)):
                run(*COMPILER, *WARNINGS, "-Wpedantic", "-Wconversion", "-fsyntax-only", "-x",
                    "c++", "-", *flags, input=f"#include <{name}>\n" * 2)


report.main()
