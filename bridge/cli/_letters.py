"""What ``fluent-bridge replay`` shows: how far it is, what it skipped, what it came to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from bridge.replay.run import Kind, Replay, Tally

_COLUMNS = ("letters", "attempts", "tag", "class", "filter", "reason")
_MOST_WARNINGS = 20
_MOST_ROWS = 50  # on a terminal
_errors = Console(stderr=True, highlight=False)


@contextmanager
def watching(run: Replay, total: int | None) -> Iterator[None]:
    """Show on stderr how far a run is, if that is a terminal, and what it skips.

    Args:
        run: it is given its ``warn`` and ``progress``.
        total: about how many letters there are.
    """
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=_errors,
        disable=not _errors.is_terminal,
        transient=True,
    ) as bar:
        task = bar.add_task("letters", total=total)
        warnings = 0

        def warn(line: str) -> None:
            nonlocal warnings
            warnings += 1
            if warnings <= _MOST_WARNINGS:
                complain("warning", line)
            elif warnings == _MOST_WARNINGS + 1:
                complain("warning", "more of these are only counted")

        def progress(tally: Tally) -> None:
            bar.update(task, completed=tally.read, description=f"{tally.replayed} replayed,")

        run.warn = warn
        run.progress = progress
        yield


def complain(kind: str, line: str) -> None:
    """Write a line about what is wrong.

    Args:
        kind: ``error`` or ``warning``.
        line: what it is. Its brackets are no markup.
    """
    style = "bold red" if kind == "error" else "bold yellow"
    _errors.print(Text.assemble((f"{kind}: ", style), line), soft_wrap=True)


def show(run: Replay) -> None:
    """Print what a run came to: a line; before it, of a dry run, what would go."""
    tally = run.tally
    if not run.dry:
        typer.echo(_summary(tally, "replayed"))
        return
    rows = [_row(tally, kind, count) for kind, count in tally.kinds.most_common()]
    if not sys.stdout.isatty():
        for row in ([name.upper() for name in _COLUMNS], *rows):
            typer.echo("\t".join(cell.replace("\t", " ") for cell in row))
    elif rows:
        table = Table(*_COLUMNS, header_style="bold")
        for row in rows[:_MOST_ROWS]:
            table.add_row(*map(Text, row))
        Console().print(table)
        if len(rows) > _MOST_ROWS:
            typer.echo(f"and {len(rows) - _MOST_ROWS} more kinds; `| cat` shows all")
    # Where what would go is on stdout, it is alone there.
    typer.echo(_summary(tally, "would be replayed"), err=True)


def _row(tally: Tally, kind: Kind, count: int) -> list[str]:
    return [str(count), str(tally.attempts[kind] or "-"), *kind]


def _summary(tally: Tally, done: str) -> str:
    parts = [
        f"{tally.read} letters read",
        f"{tally.replayed} {done}",
        f"{tally.unselected} not selected",
        f"{tally.before} replayed before",
    ]
    if tally.not_letters:
        parts.append(f"{tally.not_letters} no dead letters")
    if tally.not_sendable:
        parts.append(f"{tally.not_sendable} that cannot be sent")
    return ", ".join(parts)
