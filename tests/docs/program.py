"""Takes the program in C or Fortran out of a manual: program.py docs/NAME.md c|fortran OUTPUT"""

import pathlib
import re
import sys


def main():
    manual, language, output = sys.argv[1:]
    text = pathlib.Path(manual).read_text()
    found = re.search(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    output = pathlib.Path(output)
    # A blank line for each before it, so that the lines are those of the manual.
    output.write_text("\n" * text.count("\n", 0, found.start(1)) + found[1])


main()
