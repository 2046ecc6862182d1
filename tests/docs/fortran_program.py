"""Writes a Fortran program of a manual to a file: fortran_program.py docs/NAME.md NUMBER OUTPUT.f90

Programs are numbered from 0, and each is a whole one, with its modules."""

import pathlib
import re
import sys

manual, number, output = sys.argv[1:]
text = pathlib.Path(manual).read_text()
programs = re.findall(r"^```fortran\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
assert len(programs) == text.count("```fortran"), "a program is indented, or does not end"
assert all("\nend program\n" in program for program in programs), "a program is not whole"
pathlib.Path(output).write_text(programs[int(number)])
