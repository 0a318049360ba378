"""A shell on a terminal, as a reader has it: what it shows is what the reader sees."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import pyte

from bridge.local.processes import children

COLUMNS, LINES = 120, 100
UNWRAPPED = 1000  # columns of what is read: a long line is one line, as where it is copied from
PROMPT = re.compile(rb"<<\d+>> $")
LONGEST = 60.0  # a command of a document that takes longer hangs


class Terminal:
    """An interactive bash, with job control; it and its jobs end with the block.

    Args:
        folder: where it starts.
        environment: all the variables it has.
    """

    def __init__(self, folder, environment):
        self._terminal, end = pty.openpty()
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        attributes = termios.tcgetattr(end)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(end, termios.TCSANOW, attributes)
        self._shell = subprocess.Popen(
            ["setsid", "--ctty", "bash", "--norc", "--noprofile", "--noediting", "-i"],
            cwd=folder,
            env=environment | {"PS1": "<<$?>> ", "TERM": "xterm-256color"},
            stdin=end,
            stdout=end,
            stderr=end,
        )
        os.close(end)

    def __enter__(self):
        self._read("bash")
        return self

    def __exit__(self, *_):
        jobs = children(self._shell.pid)
        for job in jobs:  # each leads a process group, which has the workers of a sidecar in it
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job, signal.SIGTERM)
        self._shell.kill()
        self._shell.wait()
        os.close(self._terminal)

    def run(self, command):
        """Run a command; return the text that the terminal shows for it."""
        os.write(self._terminal, command.encode() + b"\n")
        return self._read(command)

    def _read(self, command):
        shown, end = b"", time.monotonic() + LONGEST
        while not PROMPT.search(shown):
            if not select.select([self._terminal], [], [], max(0.0, end - time.monotonic()))[0]:
                raise AssertionError(f"{command}: not at its end after {LONGEST:g} s: {shown!r}")
            shown += os.read(self._terminal, 65536)
        screen = pyte.Screen(UNWRAPPED, LINES)
        pyte.ByteStream(screen).feed(PROMPT.sub(b"", shown))
        return "\n".join(line.rstrip() for line in screen.display).rstrip()
