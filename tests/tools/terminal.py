"""The lockstep command on a terminal."""

import fcntl
import os
import pty
import struct
import subprocess
import termios


def on_a_terminal(case, *arguments):
    """What a terminal of 60 columns gets from stderr, and the standard output."""
    terminal, program = pty.openpty()
    fcntl.ioctl(program, termios.TIOCSWINSZ, struct.pack("4H", 24, 60, 0, 0))
    job = case.tool(*arguments, stdout=subprocess.PIPE, stderr=program, capture_output=False,
                    env={**os.environ, "TERM": "xterm"})
    os.close(program)
    shown = b""
    try:
        while part := os.read(terminal, 65536):
            shown += part
    except OSError:  # the end, on Linux
        pass
    os.close(terminal)
    return shown.decode(), job.stdout
