"""Makes tests of the C++ snippets of a manual: snippets.py docs/NAME.md OUTPUT.cpp

Each becomes the body of a test, in the fixture of tests/docs/NAME.hpp. The first one introduces
variables, such as `model`, with which the others go on: what they use and do not declare
themselves is declared there as in the first."""

import pathlib
import re
import sys


def without_comments(code):
    return re.sub("//.*", "", code)


def snippets(text):
    """The line on which each begins, and its code."""
    for match in re.finditer(r"^```cpp\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, match.start(1)) + 1, match[1]


def declarations(code):
    """The variables that are declared at the left margin, with their statements on one line."""
    for statement in re.split(r"\n(?=[^\s}])", without_comments(code)):
        match = re.match(r"(?:const )?[\w:]+ (\w+)[({ ]", statement)
        if match:
            yield match[1], " ".join(statement.split())


def declares(code, name):
    return re.search(rf"(?<!return)(?<=[\w>&]) {name}[({{ ;=]", code)


def preamble(code, known):
    """What must come before the code, on one line, so that the lines stay those of the manual."""
    lines, code = [], without_comments(code)
    for name, statement in reversed(known):
        if re.search(rf"\b{name}\b", code) and not declares(code, name):
            lines.insert(0, statement)
            code = statement + "\n" + code
    return " ".join(lines)


def main():
    manual, output = map(pathlib.Path, sys.argv[1:])
    text = manual.read_text()
    found = list(snippets(text))
    assert len(found) == text.count("```cpp"), "a snippet is indented, or does not end"
    known = list(declarations(found[0][1]))
    tests = [f'#include "docs/{manual.stem}.hpp"\n\nnamespace lockstep {{\n']
    for number, (line, code) in enumerate(found):
        before = preamble(code, known if number > 0 else [])
        tests.append(f"TEST_F(Snippets, line_{line}) {{ {before}\n"
                     f'#line {line} "{manual.name}"\n{code}}}\n')
    tests.append("}  // namespace lockstep\n")
    output.write_text("\n".join(tests))


main()
