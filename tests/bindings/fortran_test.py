"""Installs the build into an empty folder, and uses it from Fortran as a code would that knows it by pkg-config
alone: what compiles, what does not, and how an error ends a program."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "testing"))
import report

# The last argument is the compiler and what it needs besides, such as a sanitizer.
LAUNCH, BUILD, COMPILER = sys.argv[1:4]
del sys.argv[1:4]
COMPILER = COMPILER.split()
CMAKE = """
cmake_minimum_required(VERSION 3.20)
project(consumer LANGUAGES Fortran)
find_package(lockstep 0.1 REQUIRED)
add_executable(consumer main.f90)
target_link_libraries(consumer PRIVATE lockstep::fortran)
"""
WARNINGS = ["-std=f2018", "-Wall", "-Wextra", "-Werror"]

PROGRAM = """
program p
  use, intrinsic :: iso_fortran_env, only: int64, real32, real64
  use lockstep
  implicit none
  type(lockstep_parameters) :: parameters
  type(lockstep_items) :: items
  {declarations}
  call parameters%create()
  call items%create()
  {statement}
  call items%free()
  call parameters%free()
end program
"""


def attempt(*command, **options):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=200, **options)


def run(*command, **options):
    job = attempt(*command, **options)
    if job.returncode != 0:
        raise AssertionError(f"{command} failed:\n{job.stdout}{job.stderr}")
    return job.stdout


def without_comments(text):
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


def argument_count(arguments):
    """Of a list in C, in which an argument may be a function with arguments of its own."""
    while "(" in arguments:
        arguments = re.sub(r"\([^()]*\)", "", arguments)
    return 0 if arguments.strip() in ("", "void") else arguments.count(",") + 1


class Fortran(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="lockstep-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        run("meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", cls.folder / "stage")
        description, = cls.folder.rglob("lockstep.pc")
        # The staged tree becomes a prefix of its own.
        prefix = re.search(r"^prefix=/(.*)$", description.read_text(), re.MULTILINE)[1]
        cls.prefix = cls.folder / "prefix"
        (cls.folder / "stage" / prefix).rename(cls.prefix)
        for description in cls.folder.rglob("*.pc"):
            description.write_text(description.read_text().replace(f"prefix=/{prefix}", f"prefix={cls.prefix}"))
        cls.libraries = description.parent.parent
        cls.flags = run("pkg-config", "--cflags", "--libs", "lockstep-fortran",
                        env={**os.environ, "PKG_CONFIG_PATH": str(description.parent)}).split()
        path = f"{cls.libraries}:{os.environ.get('LD_LIBRARY_PATH', '')}"
        cls.environment = {**os.environ, "LD_LIBRARY_PATH": path}

    def compile(self, source):
        return attempt(*COMPILER, *WARNINGS, source, "-o", source.with_suffix(""), *self.flags, cwd=self.folder)

    def compile_text(self, declarations, statement):
        source = self.folder / "program.f90"
        source.write_text(PROGRAM.format(declarations=declarations, statement=statement))
        return self.compile(source)

    def test_calls_all_functions_of_c_with_as_many_arguments(self):
        wanted, found = {}, {}
        for header in (ROOT / "include" / "lockstep" / "bindings").glob("*.h"):
            for name, arguments in re.findall(r"^LOCKSTEP_(?:CALL|TEXT)\b[^;(]*?(\w+)\((.*?)\);",
                                              without_comments(header.read_text()), re.DOTALL | re.MULTILINE):
                wanted[name] = argument_count(arguments)
        for source in (ROOT / "src" / "bindings" / "fortran").glob("*.f90"):
            for arguments, name in re.findall(r'function \w+\((.*?)\)[ &\n]*bind\(c, name="(\w+)"\)',
                                              source.read_text()):
                found[name] = argument_count(arguments)
        del wanted["lockstep_communicator_create"]  # whose communicator is one of C
        del found["strlen"]
        self.assertGreater(len(wanted), 70)
        self.assertEqual(found, wanted)

    def test_installs_the_modules_beside_the_headers(self):
        found = {path.name for path in (self.prefix / "include" / "lockstep" / "fortran").iterdir()}
        self.assertIn("lockstep.mod", found)
        self.assertTrue(all(name.endswith(".mod") for name in found), found)
        self.assertTrue((self.libraries / "liblockstep-fortran.so").exists())

    def test_links_with_the_installed_library(self):
        source = self.folder / "main.f90"
        shutil.copy(ROOT / "tests" / "consumer" / "main.f90", source)
        job = self.compile(source)
        self.assertEqual((job.returncode, job.stderr), (0, ""))
        self.check_program(source.with_suffix(""), self.libraries, self.environment)

    def check_program(self, program, libraries, environment):
        linked = run("ldd", program, env=environment)
        self.assertIn(f"{libraries}/liblockstep-fortran.so", linked)
        self.assertIn(f"{libraries}/liblockstep.so", linked)
        losses = []
        for ranks in 1, 2, 3:
            output = run(LAUNCH, "-n", ranks, program, env=environment)
            losses.append(re.fullmatch(rf"{ranks} ranks: loss +([\d.]+)\n", output)[1])
        self.assertEqual(losses, losses[:1] * 3)

    def test_cmake_finds_it_in_a_prefix_that_was_moved(self):
        moved, project = self.folder / "moved", self.folder / "cmake"
        shutil.copytree(self.prefix, moved, symlinks=True)
        project.mkdir()
        shutil.copy(ROOT / "tests" / "consumer" / "main.f90", project)
        (project / "CMakeLists.txt").write_text(CMAKE)
        run("cmake", "-G", "Ninja", "-S", project, "-B", project / "build", f"-DCMAKE_PREFIX_PATH={moved}",
            f"-DCMAKE_Fortran_FLAGS={' '.join(WARNINGS + COMPILER[1:])}",
            env={**os.environ, "FC": "gfortran"})
        run("cmake", "--build", project / "build")
        self.check_program(project / "build" / "consumer", moved / self.libraries.relative_to(self.prefix),
                           os.environ)

    def test_the_compiler_refuses_to_keep_what_is_no_target(self):
        for declarations, statement in [
            ("real(real64), target :: a(3)", 'call parameters%borrow("a", a)'),
            ("real(real64), target :: a(3, 4)", 'call parameters%borrow("a", a(:, 2:3))'),
            ("real(real32), pointer :: a(:)\n  allocate (a(3))", 'call parameters%borrow("a", a)'),
            ("integer(int64), target :: a", 'call items%add_number("numbers", "a", a)'),
        ]:
            with self.subTest(statement=statement, declarations=declarations):
                job = self.compile_text(declarations, statement)
                self.assertEqual((job.returncode, job.stderr), (0, ""))
        for declarations, statement in [
            ("real(real64) :: a(3)", 'call parameters%borrow("a", a)'),
            ("real(real64), target :: a(3)", 'call parameters%borrow("a", a + 1)'),
            ("real(real64), target :: a(3)", 'call parameters%borrow("a", (a))'),
            ("integer, target :: a(3)", 'call parameters%borrow("a", a)'),
            ("real(real64) :: a(3)", 'call items%add_array("fields", "a", a)'),
            ("integer(int64) :: a", 'call items%add_number("numbers", "a", a)'),
        ]:
            with self.subTest(statement=statement, declarations=declarations):
                self.assertNotEqual(self.compile_text(declarations, statement).returncode, 0)

    def test_an_error_without_stat_ends_the_program_with_its_message(self):
        job = self.compile_text("real(real64), pointer :: a(:)", 'call parameters%value("weight", a)')
        self.assertEqual((job.returncode, job.stderr), (0, ""))
        job = attempt(self.folder / "program", env=self.environment)
        self.assertNotEqual(job.returncode, 0)
        self.assertIn("lockstep: there is no parameter 'weight' among the 0 of this list: none\nERROR STOP 1\n", job.stderr)


report.main()
