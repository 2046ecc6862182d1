"""lockstep verify as its users see it: good files, files with every kind of damage, and long work."""

import os
import pathlib
import re
import struct
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "testing"), str(ROOT / "tests" / "tools")]
import report
from checkpoint_file import Tensor, checksum
from command import GOLDEN, TOOL, Case, training_state
from terminal import on_a_terminal

LONG = 65 << 20


def with_header(data, change):
    """A file whose header is changed, and its checksum with it."""
    size, = struct.unpack_from("<Q", data, 16)
    header = change(data[32:32 + size])
    assert len(header) == size and header != data[32:32 + size]
    return data[:24] + struct.pack("<Q", checksum(header)) + header + data[32 + size:]


class Verify(Case):
    def test_says_of_each_file_that_it_is_good(self):
        path = self.write("run.lockstep", training_state())
        self.assertEqual(self.output("verify", "run.lockstep", GOLDEN, path),
                         f"ok  run.lockstep  6 tensors, 1320 bytes\nok  {GOLDEN}  4 tensors, 668 bytes\n"
                         f"ok  {path}  6 tensors, 1320 bytes\n")
        for state, count in ({"x": Tensor("u8", [1], [1])}, "1 tensor"), ({}, "0 tensors"):
            path = self.write("x", state)
            self.assertEqual(self.output("verify", path), f"ok  {path}  {count}, {path.stat().st_size} bytes\n")

    def test_names_the_part_that_is_damaged(self):
        good = GOLDEN.read_bytes()

        def changed(offset, new=None):
            return good[:offset] + (bytes([good[offset] ^ 1]) if new is None else new) + good[offset + 1:]
        for data, part in (
                (b"", "only 0 bytes"),
                (changed(0), "does not begin as a checkpoint"),
                (changed(8, b"\x09"), "version 9"),
                (changed(12), "bytes 12 to 15"),
                (changed(22), "header claims"),
                (changed(24), "checksum of its header"),
                (changed(0x30), "checksum of its header"),
                (with_header(good, lambda header: header.replace(b"6 weight 4 3", b"6 weight 4 2")), "tensor's number"),
                (with_header(good, lambda header: header.replace(b"2 2 1 64 2", b"2 1 1 64 2")), "expected 1 bytes"),
                (changed(0x1a0), "padding from byte 410 to 448"),
                (changed(0x1c0), "checksum of 'model/labels'"),
                (changed(0x200), "checksum of 'model/mask'"),
                (changed(0x202), "padding from byte 514 to 576"),
                (changed(0x28b), "checksum of 'model/weight'"),
                (changed(0x28c), "668 bytes of the 669"),
                (changed(0x29b), "cut off"),
                (good[:-1], "cut off"),
                (good + b"\n", "cut off")):
            path = self.write("damaged", data)
            error = self.error("verify", path, status=1)
            self.assertIn(str(path), error)
            self.assertIn(part, error)

    def test_finds_each_byte_that_is_changed_and_each_end_that_is_missing(self):
        good = GOLDEN.read_bytes()
        paths = [self.write(f"changed{i:03}", good[:i] + bytes([good[i] ^ 0x10]) + good[i + 1:])
                 for i in range(len(good))]
        paths += [self.write(f"short{i:03}", good[:i]) for i in range(len(good))]
        job = self.tool("verify", *paths, status=1)
        self.assertEqual(job.stdout, "")
        lines = job.stderr.splitlines()
        self.assertEqual(len(lines), len(paths))
        for line, path in zip(lines, paths):
            self.assertTrue(line.startswith(f"error: the checkpoint '{path}' cannot be used: "), line)

    def test_goes_on_after_a_file_that_is_damaged(self):
        bad = self.write("bad", GOLDEN.read_bytes()[:-1])
        job = self.tool("verify", bad, GOLDEN, "none", status=1)
        self.assertEqual(job.stdout, f"ok  {GOLDEN}  4 tensors, 668 bytes\n")
        self.assertEqual([line.split("'")[1] for line in job.stderr.splitlines()], [str(bad), "none"])

    def test_tells_things_in_their_order(self):
        bad = self.write("bad", b"")
        job = self.tool("verify", GOLDEN, bad, GOLDEN, status=1, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                        capture_output=False)
        self.assertRegex(job.stdout, r"\Aok .*\nerror: .*\nok .*\n\Z")

    def test_refuses_what_is_no_file_that_it_may_read(self):
        self.assertIn("no such file", self.error("verify", "none", status=1))
        self.assertIn("not a regular file", self.error("verify", self.folder, status=1))
        os.mkfifo(self.folder / "pipe")
        self.assertIn("not a regular file", self.error("verify", "pipe", status=1))
        secret = self.write("secret", training_state())
        secret.chmod(0)
        # Root may read all files, unless it gives up that right.
        before = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
        job = self.tool("verify", secret, status=1, before=before)
        self.assertRegex(job.stderr, r"\Aerror: .*secret.* cannot be opened for reading: Permission denied\n\Z")

    def test_refuses_arguments_that_it_does_not_know(self):
        for arguments in [], [GOLDEN, "--turbo"]:
            self.assertIn("(try --help)", self.error("verify", *arguments, status=2))

    def test_shows_the_progress_of_long_work_on_a_terminal(self):
        path = self.write("long.lockstep", {"model": Tensor("u8", [LONG], bytes(LONG))})
        shown, output = on_a_terminal(self, "verify", path, GOLDEN)
        self.assertRegex(output, r"\Aok .*long.lockstep  1 tensor, \d+ bytes\nok .*\n\Z")
        drawn = re.split(r"\r", shown.replace("\r\n", "\n").replace("\x1b[K", ""))
        self.assertRegex(drawn[1], r"\Along.lockstep +\d% \[>? +\]")
        self.assertRegex(drawn[-1], r"\Along.lockstep: +65 MiB in .*\n\Z")
        for line in drawn:
            self.assertLess(len(line), 61)
        self.assertEqual(on_a_terminal(self, "verify", GOLDEN)[0], "")
        self.assertEqual(self.tool("verify", path).stderr, "")

    def test_takes_little_memory(self):
        def peak(path):
            job = subprocess.Popen([TOOL, "verify", path], stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(job.pid, 0)
            job.returncode = os.waitstatus_to_exitcode(status)
            self.assertEqual(job.returncode, 0)
            return usage.ru_maxrss * 1024
        path = self.write("long.lockstep", {"model": Tensor("u8", [LONG], bytes(LONG))})
        self.assertLess(peak(path) - peak(GOLDEN), LONG // 4)


report.main()
