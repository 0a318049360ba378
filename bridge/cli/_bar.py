"""How far the sending of a file is, on a terminal."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from bridge.feed import Tally
from bridge.samples import Source


class Bar:
    """How far it is, on stderr where that is a terminal.

    Args:
        name: the target.
        tally: counted up by others.
        shown: whether there is room for it on the terminal.
    """

    def __init__(self, name: str, tally: Tally, *, shown: bool) -> None:
        console = Console(stderr=True)
        self._tally = tally
        self._source: Source | None = None
        self._done = 0  # bytes of earlier rounds through the file
        self._began = time.monotonic()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[counts]}"),
            console=console,
            disable=not (shown and console.is_terminal),
            transient=True,
            redirect_stdout=False,  # results go where they are asked for, not to the bar's stderr
            redirect_stderr=False,
        )
        self._task = self._progress.add_task(escape(name), total=None, counts="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def follow(self, source: Source, rounds: int) -> None:
        """Take the bar's length from a file that is read now, one of so many times."""
        if self._source is not None:
            self._done += self._source.size or 0
        self._source = source
        if source.size:
            self._progress.update(self._task, total=source.size * rounds)

    def update(self) -> None:
        """Show what the tally says now."""
        tally = self._tally
        rate = tally.events / max(time.monotonic() - self._began, 1e-9)
        position = self._source.position if self._source else None
        self._progress.update(
            self._task,
            completed=None if position is None else self._done + position,
            counts=f"{tally.events:,} events, {rate:,.0f}/s, {tally.acknowledged:,} of"
            f" {tally.chunks:,} chunks acknowledged, {decimal(tally.bytes)}",
        )
