"""The harnesses of a run, one for all case files that need the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bridge.testing.case import CaseFile
from bridge.testing.harness import Harness


class Harnesses:
    """Loads the filters of a folder once for the case files that give them the same settings.

    Args:
        sidecar: whether they run in a real sidecar.
    """

    def __init__(self, *, sidecar: bool = False) -> None:
        self._sidecar = sidecar
        self._open: dict[tuple[Any, ...], Harness] = {}
        self._failed: dict[tuple[Any, ...], Exception] = {}

    def get(self, cases: CaseFile) -> Harness:
        """Return the harness for a case file.

        Raises:
            ExceptionGroup: of :class:`~bridge.errors.LoadError`: its filters cannot be loaded.
        """
        parameters = json.dumps(cases.parameters, sort_keys=True, default=repr)
        folder = cases.folder.resolve()
        key = (folder, cases.payload, cases.payload_key, parameters)
        if key in self._failed:
            raise self._failed[key]
        if key not in self._open:
            try:
                self._open[key] = Harness(
                    cases.folder,
                    payload=cases.payload,
                    payload_key=cases.payload_key,
                    parameters=cases.parameters,
                    sidecar=self._sidecar,
                )
            except ExceptionGroup as group:
                self._failed[key] = group
                raise
        return self._open[key]

    def close(self) -> list[str]:
        """Close all of them, and return what could not be closed, a line each."""
        lines: list[str] = []
        for (folder, *_), harness in self._open.items():
            try:
                harness.close()
            except ExceptionGroup as group:
                lines += [
                    f"{_shown(folder)}: a filter's close() raised {type(one).__qualname__}: {one}"
                    for one in group.exceptions
                ]
        self._open.clear()
        return lines


def _shown(folder: Path) -> str:
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)
