"""A program run as a child process: started, awaited, stopped, killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bridge.errors import BridgeError

_POLL = 0.05
_TAIL = 30


class ProgramError(BridgeError):
    """A program did not start, or ended when it should run; the message has its log's tail."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def listening(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether something accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0


def children(pid: int) -> list[int]:
    """Return the ids of the processes that a process has started itself."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Program:
    """A program, and the one process of it that runs at a time.

    It leads a process group of its own, so that what it starts dies with it: Fluentd is a
    supervisor and a worker. Its standard input is a pipe that closes when this process ends.

    Args:
        command: the program and its arguments.
        log: the file that its output is appended to; its folder is made.
        environment: variables to set beside those of this process, as they are at each start.
    """

    def __init__(
        self, command: Sequence[str], *, log: Path, environment: dict[str, str] | None = None
    ) -> None:
        self.command = list(command)
        self.log = log
        self.environment = {} if environment is None else environment
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process's id, which is its group's.

        Raises:
            ProgramError: it was not started.
        """
        if self._process is None:
            raise ProgramError(f"{self.command[0]} has not been started")
        return self._process.pid

    def start(self, ready: Callable[[], bool], *, timeout: float) -> None:
        """Start the process and wait until it is ready.

        Args:
            ready: asked again and again whether it is.
            timeout: seconds to wait at most.

        Raises:
            ProgramError: it cannot be run, it ended, or it was not ready in time (it is killed
                then); the message ends in the last lines of its log.
        """
        if self.running:
            raise ProgramError(f"{self.command[0]} runs already, as process {self.pid}")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            try:
                self._process = subprocess.Popen(  # noqa: S603 - the command is our own
                    self.command,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **self.environment},
                    start_new_session=True,
                )
            except OSError as error:
                raise ProgramError(f"{self.command[0]} cannot be run: {error}") from error
        deadline = time.monotonic() + timeout
        while not ready():
            if self._process.poll() is not None:
                self.kill()
                raise ProgramError(
                    f"{self.command[0]} ended with status {self._process.returncode} before it "
                    f"was ready; the last lines of {self.log}:\n{self.tail()}"
                )
            if time.monotonic() > deadline:
                self.kill()
                raise ProgramError(
                    f"{self.command[0]} was not ready within {timeout:g} s; "
                    f"the last lines of {self.log}:\n{self.tail()}"
                )
            time.sleep(_POLL)

    def stop(self, grace: float = 30.0) -> int:
        """End the process by SIGTERM, and by SIGKILL where that takes too long.

        Args:
            grace: seconds between the two.

        Returns:
            Its exit status; negative for the signal that ended it, 0 where none was running.
        """
        if self._process is None:
            return 0
        if self.running:
            # To the leader alone: what it started is its own to stop.
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
        self.kill()
        return self._process.returncode or 0

    def kill(self) -> None:
        """End the process and all that it started by SIGKILL, at once."""
        if self._process is None:
            return
        # The group may outlive its leader, and then its id belongs to nobody else.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def output(self) -> str:
        """Return what the process has written since it was last started."""
        with contextlib.suppress(FileNotFoundError), self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")
        return ""

    def tail(self, lines: int = _TAIL) -> str:
        """Return the last lines of :meth:`output`."""
        return "\n".join(self.output().splitlines()[-lines:])
