"""Takes a program in C or Fortran out of a manual: program.py docs/NAME.md c|fortran NUMBER OUTPUT"""

import pathlib
import re
import sys


def main():
    manual, language, number, output = sys.argv[1:]
    text = pathlib.Path(manual).read_text()
    found = list(re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))[int(number)]
    # A blank line for each before it, so that the lines are those of the manual.
    pathlib.Path(output).write_text("\n" * text.count("\n", 0, found.start(1)) + found[1])


main()
