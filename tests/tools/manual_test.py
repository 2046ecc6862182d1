"""What lockstep says of itself: --help, --version and the manual page."""

import pathlib
import re
import shutil
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "testing"), str(ROOT / "tests" / "tools")]
import report
from command import Case

PAGE = ROOT / "src" / "tools" / "lockstep.1"
COMMANDS = ["report", "inspect", "verify", "diff", "convert"]


class Manual(Case):
    def test_each_command_explains_itself_and_its_status(self):
        overview = self.output("--help")
        commands = overview[overview.index("Subcommands:"):]
        self.assertEqual(re.findall(r"^  (\w+) {2,}\w", commands, re.MULTILINE), COMMANDS)
        for text in overview, *(self.output(name, "--help") for name in COMMANDS):
            self.check_for_people(text)
            self.assertIn("--help", text)
        for name in COMMANDS:
            self.assertRegex(self.output(name, "--help"), r"Ends with status 0.*,\s+1\s.*,\s+2\s")

    def test_the_page_has_all_commands_and_options(self):
        page = PAGE.read_text().replace("\\-", "-")
        self.assertEqual(sorted(re.findall(r"^\.SS (\w+)$", page, re.MULTILINE)), sorted(COMMANDS))
        for name in COMMANDS:
            section = re.search(rf"^\.SS {name}\n(.*?)^\.S[SH]", page, re.MULTILINE | re.DOTALL)[1]
            synopsis = re.search(rf"^\.B lockstep {name}\n(.*?)^\.(br|SH)", page, re.MULTILINE | re.DOTALL)[1]
            options = set(re.findall(r"^  (?:-\w,)?(--[\w-]+)", self.output(name, "--help"), re.MULTILINE)) - {"--help"}
            for part in section, synopsis:
                self.assertEqual(set(re.findall(r"--\w[\w-]*", part)), options, name)

    @unittest.skipUnless(shutil.which("groff"), "groff is missing")
    def test_the_page_is_set_without_complaints(self):
        job = subprocess.run(["groff", "-ww", "-man", "-Tascii", "-P-c", "-rLL=80n", PAGE], capture_output=True,
                             text=True)
        self.assertEqual((job.returncode, job.stderr), (0, ""))
        text = re.sub(".\b", "", job.stdout)
        self.check_for_people(text)
        self.assertIn("lockstep diff [--tolerance X] [--json] A B\n", text)

    def test_tells_its_version(self):
        self.assertRegex(self.output("--version"), r"\Alockstep \d+\.\d+\.\d+\n\Z")

    def test_refuses_what_is_no_command(self):
        for arguments in [], ["paint"], ["--turbo"]:
            self.assertIn("(try --help)", self.error(*arguments, status=2))


report.main()
