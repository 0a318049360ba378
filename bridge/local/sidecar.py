"""A sidecar as a child process, for demos, tests and benchmarks."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from bridge.local.processes import Program, free_port

_PREFIX = "FLUENT_BRIDGE_"


class Sidecar:
    """``fluent-bridge run`` on free ports of 127.0.0.1, the same ones after a restart.

    For gRPC alone give it ``listen.enabled`` false and ``rpc.socket`` or ``rpc.port``.

    Args:
        filters: the folder of filter files.
        folder: where its log goes.
        settings: settings by their dotted names, beside the ports.

    Attributes:
        port: where it accepts Forward connections, unless told not to.
        admin: where it serves health and metrics.
    """

    def __init__(
        self, filters: Path, folder: Path, settings: Mapping[str, object] | None = None
    ) -> None:
        self.port = free_port()
        self.admin = free_port()
        chosen = {
            "filters.path": filters,
            "listen.port": self.port,
            "admin.port": self.admin,
            "log.format": "json",
            **(settings or {}),
        }
        self._program = Program(
            [sys.executable, "-m", "bridge", "run"],
            log=folder / "sidecar.log",
            environment={
                _PREFIX + name.upper().replace(".", "__"): str(value)
                for name, value in chosen.items()
            },
        )

    @property
    def pid(self) -> int:
        """The transport process's id."""
        return self._program.pid

    @property
    def running(self) -> bool:
        """Whether it is there."""
        return self._program.running

    @property
    def worker_pids(self) -> list[int]:
        """The process ids of its workers."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def start(self, timeout: float = 60.0) -> None:
        """Start it, and return when it is ready.

        Args:
            timeout: seconds to wait at most.

        Raises:
            ProgramError: it did not get ready; the message has its log's tail.
        """
        self._program.start(self.ready, timeout=timeout)

    def stop(self, grace: float = 60.0) -> int:
        """Ask it to end, and return its exit status."""
        return self._program.stop(grace)

    def kill(self) -> None:
        """End the transport process by SIGKILL; its workers see to their own end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._program.kill()

    def ready(self) -> bool:
        """Return whether it says that it is ready."""
        try:
            with urllib.request.urlopen(self._url("readyz"), timeout=5) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def metrics(self) -> dict[str, float]:
        """Return its metrics: by name, summed over all labels, and by name and labels."""
        with urllib.request.urlopen(self._url("metrics"), timeout=5) as answer:  # noqa: S310
            text = answer.read().decode()
        values: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
                values[sample.name] = values.get(sample.name, 0.0) + sample.value
                if labels:
                    values[f"{sample.name}{{{labels}}}"] = sample.value
        return values

    def log(self) -> list[dict[str, Any]]:
        """Return its log's lines since it was last started; other output as ``{"event": line}``."""
        lines = []
        for line in self._program.output().split("\n")[
            :-1
        ]:  # not at the line separators of Unicode
            try:
                lines.append(msgspec.json.decode(line, type=dict[str, Any]))
            except msgspec.DecodeError:
                lines.append({"event": line})
        return lines

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.admin}/{path}"
