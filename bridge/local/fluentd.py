"""Fluentd processes for demos and tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from bridge.local.processes import Program, children, free_port, listening

PROGRAM = "fluentd"

_PACKAGE = Path(__file__).resolve().parent.parent
_STARTED = "fluentd worker is now running"  # supervisor.rb


def configuration(road: str = "forward") -> Path:
    """Return the complete configuration of a road.

    Args:
        road: the name of its file without the ending.

    Raises:
        FileNotFoundError: there is none.
    """
    # The wheel carries fluent-conf inside the package, a checkout beside it.
    for folder in (_PACKAGE / "fluent-conf", _PACKAGE.parent / "fluent-conf"):
        file = folder / f"{road}.conf"
        if file.exists():
            return file
    raise FileNotFoundError(f"there is no configuration {road}.conf in {folder}")


def plugin() -> list[str]:
    """Return the arguments by which Fluentd finds fluent-plugin-bridge uninstalled."""
    library = configuration().parent / "fluent-plugin-bridge" / "lib"
    return ["-I", str(library), "-p", str(library / "fluent" / "plugin")]


class Fluentd:
    """A Fluentd, supervisor and worker, that runs one of the complete configurations.

    Args:
        folder: its buffers and its log; what is there from before is taken up again.
        settings: variables of the configuration, see the head of its file. ``BUFFER_DIR`` and
            ``RETURN_PORT`` are set here where they are missing. What is changed in the attribute
            of this name holds from the next start.
        conf: the configuration; by default that of road A.
        arguments: more of Fluentd's own, as :func:`plugin` returns.
        listens: whether the configuration has an input at ``RETURN_PORT``.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str],
        *,
        conf: Path | None = None,
        arguments: Sequence[str] = (),
        listens: bool = True,
    ) -> None:
        self.folder = folder
        self.settings = {
            "BUFFER_DIR": str(folder / "buffers"),
            "RETURN_PORT": str(free_port()),
            **settings,
        }
        self.return_port = int(self.settings["RETURN_PORT"])
        self._listens = listens
        self._program = Program(
            [PROGRAM, "--config", str(conf or configuration()), *arguments],
            log=folder / "fluentd.log",
            environment=self.settings,
        )

    @staticmethod
    def missing() -> str | None:
        """Return why there can be none on this machine, None where there can."""
        return None if shutil.which(PROGRAM) else f"{PROGRAM} is not on the PATH"

    @property
    def pid(self) -> int:
        """Its supervisor's id."""
        return self._program.pid

    @property
    def running(self) -> bool:
        """Whether its supervisor is there."""
        return self._program.running

    def output(self) -> str:
        """Return what it has written since it was last started."""
        return self._program.output()

    def start(self, timeout: float = 60.0) -> None:
        """Start it, and return when its worker runs and, if it listens, accepts connections.

        Args:
            timeout: seconds to wait at most. A worker that finds no Kafka ends, and its
                supervisor starts another: that lasts until then.

        Raises:
            ProgramError: it did not start; the message has its log's tail.
        """
        self._program.start(
            lambda: (
                _STARTED in self._program.output()
                and (not self._listens or listening(self.return_port))
            ),
            timeout=timeout,
        )

    def stop(self, grace: float = 60.0) -> int:
        """End it in good order, by SIGKILL after so many seconds; return its exit status."""
        return self._program.stop(grace)

    def kill(self) -> None:
        """End supervisor and worker by SIGKILL."""
        self._program.kill()

    def kill_worker(self) -> None:
        """End its worker by SIGKILL; its supervisor starts another."""
        for pid in children(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def freeze(self) -> None:
        """Stop supervisor and worker where they stand, by SIGSTOP, until :meth:`thaw`."""
        self._program.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._program.signal(signal.SIGCONT)

    def restart(self, grace: float = 60.0, timeout: float = 60.0) -> None:
        """End it in good order and start it again on its buffers."""
        self.stop(grace)
        self.start(timeout)
