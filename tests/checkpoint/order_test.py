"""What a save asks of the system, as strace sees it."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "testing"))
import report
import strace

MANAGER = sys.argv.pop()
PROGRAM = sys.argv.pop()
LAUNCH = sys.argv.pop()
CALL = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)")
CHANGES = {"creat", "fdatasync", "fsync", "ftruncate", "link", "linkat", "mkdir", "mkdirat",
           "pwrite64", "pwritev", "pwritev2", "rename", "renameat", "renameat2", "rmdir", "symlink",
           "symlinkat", "sync", "syncfs", "truncate", "unlink", "unlinkat", "write", "writev"}


def trace(folder, ranks, *command):
    """The lines of strace from rank to rank."""
    rank = "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}"
    script = f'exec strace -f -y -s 16 -e trace=%file,%desc -o "{folder}/trace.{rank}" "$@"'
    job = subprocess.run(
        [LAUNCH, "-n", str(ranks), "sh", "-c", script, "sh", *map(str, command)], capture_output=True, text=True, timeout=250,
        # Calls of its thread would come between the two lines of those that take their time.
        env={**os.environ, "LOCKSTEP_WATCHDOG": "0"})
    assert job.returncode == 0, job.stderr
    return [whole_calls((folder / f"trace.{rank}").read_text().splitlines()) for rank in range(ranks)]


def whole_calls(lines):
    """A line for each call, where it began, also where a call of another thread came between its beginning and its end."""
    calls, begun = [], {}
    for line in lines:
        end = re.match(r"(\d+) +<\.\.\. \w+ resumed>(.*)", line)
        if end and end[1] in begun:
            calls[begun.pop(end[1])] += end[2]
            continue
        if line.endswith("<unfinished ...>"):
            line = line.removesuffix("<unfinished ...>")
            begun[line.split(maxsplit=1)[0]] = len(calls)
        calls.append(line)
    return calls


def between(lines, begin, end):
    """The lines after the one that writes `begin`, and before the one that writes `end`."""
    def place(text):
        return next(i for i, line in enumerate(lines) if f'"{text}' in line and "write(" in line)
    return lines[place(begin) + 1:place(end)]


def calls_on(lines, folder):
    """(call, names in the folder) of those that open, sync, close or change what is in it."""
    for line in lines:
        if f"{folder}/run" not in line:
            continue
        match = CALL.match(line)
        assert match, f"cannot be read: {line}"
        name, arguments, result = match.groups()
        if name in CHANGES or name in ("open", "openat", "close"):
            assert int(result) >= 0, line
            yield name, re.findall(f"{folder}/run(?:/([\\w.-]*))?", arguments)


@unittest.skipIf(strace.why_not(), strace.why_not())
class Order(unittest.TestCase):
    def traced(self, ranks, saves):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder).resolve()
            (folder / "run").mkdir()
            lines = trace(folder, ranks, PROGRAM, folder / "run/file", saves)
            self.assertEqual([entry.name for entry in (folder / "run").iterdir()], ["file"])
            return folder, lines

    @staticmethod
    def save_of(file):
        return [("open", f"{file}.tmp"), ("write", f"{file}.tmp"), ("fsync", f"{file}.tmp"), ("close", f"{file}.tmp"),
                ("rename", f"{file}.tmp", file), ("open", ""), ("fsync", ""), ("close", "")]

    def order(self, calls):
        """Names of calls and files, in which writes that follow one another are one."""
        order = []
        for name, names in calls:
            call = (re.sub("(at|at2)$", "", name), *names)
            if name != "write" or order[-1:] != [call]:
                order.append(call)
        return order

    def check_nothing_else(self, folder, lines):
        """That nothing but the folder, shared memory, pipes and sockets is changed."""
        for line in lines:
            match = CALL.match(line)
            if not match or f"{folder}/run" in line:
                continue
            name, arguments, _ = match.groups()
            opens_to_write = name in ("open", "openat") and re.search("O_WRONLY|O_RDWR|O_CREAT", arguments)
            if opens_to_write or (name in CHANGES and "write" not in name):
                self.assertRegex(arguments, "/dev/|/proc/", line)
            elif name in CHANGES:
                self.assertRegex(arguments, r"^\d+<(pipe:|socket:|TCP|UNIX|anon_inode:|/dev/)", line)

    def test_is_write_sync_rename_sync_of_the_folder_on_any_number_of_ranks(self):
        for ranks in 1, 2:
            folder, traces = self.traced(ranks, 2)
            for begin, end in ("saving 1", "saved 1"), ("saving 2", "saved 2"):
                lines = between(traces[0], begin, end)
                self.assertEqual(self.order(calls_on(lines, folder)), self.save_of("file"))
                self.check_nothing_else(folder, lines)
            for lines in traces[1:]:
                self.assertEqual(list(calls_on(lines, folder)), [])

    def test_of_a_manager_has_the_old_file_deleted_when_the_new_one_is_on_disk(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder).resolve()
            traces = trace(folder, 2, MANAGER, folder / "run", 4)
        files = [f"step-{step:09}.lockstep" for step in range(5)]
        of_rank_0 = calls_on(between(traces[0], "loaded 0", "ended 4"), folder)
        self.assertEqual(self.order(of_rank_0), [
            *self.save_of(files[1]), *self.save_of(files[2]),
            *self.save_of(files[3]), ("unlink", files[1]), *self.save_of(files[4]), ("unlink", files[2])])
        self.assertEqual(list(calls_on(traces[1], folder)), [])


report.main()
