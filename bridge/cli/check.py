"""``fluent-bridge check``: what would run, and what is wrong with it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.cli._flags import with_settings
from bridge.errors import SettingsError
from bridge.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.checking import Applied

Loaded = tuple[Settings | None, SettingsError | None]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check", epilog="Example: fluent-bridge check filters --tag ad.click")(
        with_settings(check, _load)
    )


def check(
    loaded: Loaded,
    folder: Annotated[  # noqa: ARG001 - with_settings makes filters.path of it
        str | None, typer.Argument(metavar="FOLDER", help="Folder of filter files: filters.path.")
    ] = None,
    *,
    tag: Annotated[
        str | None, typer.Option(metavar="TAG", help="Show only what this tag goes through.")
    ] = None,
    fluentd_conf: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Have Fluentd, if it is on the PATH, check this too."),
    ] = None,
) -> None:
    """Load everything as a worker does, and show which filter applies to which tags, in order.

    Takes the flags, environment and file that `run` takes. Shows all mistakes at once, in filters,
    cases and settings, and ends with exit code 2 then.
    """
    settings, wrong = loaded
    mistakes: list[Exception] = [] if wrong is None else [wrong]
    found = [] if settings is None else _look_at_filters(settings, tag, mistakes)
    if fluentd_conf is not None:
        found.append(_look_at_configuration(fluentd_conf, mistakes))
    if mistakes:
        raise ExceptionGroup("something is wrong", mistakes)
    _note(f"{', '.join(found)}: no mistakes")


def _look_at_filters(settings: Settings, tag: str | None, mistakes: list[Exception]) -> list[str]:
    from bridge import checking  # noqa: PLC0415 - --help must not wait for it
    from bridge.testing import cases  # noqa: PLC0415

    found = []
    try:
        registry = checking.load(settings)
    except ExceptionGroup as group:
        mistakes += group.exceptions
    else:
        rows = checking.applied(registry, settings)
        chain = [row for one, row in rows if tag is None or one.matches(tag)]
        _show(checking.Applied, chain)
        if not chain:
            patterns = ", ".join(dict.fromkeys(row.tags for _, row in rows))
            _note(
                f"no filter applies to {tag}: its events pass as they are; the filters are for"
                f" {patterns}"
            )
        found.append(_count(len(rows), "filter"))
    path = settings.filters.path
    if not path.exists():
        return found  # whoever loads the filters has said so
    try:
        files = cases.read_all(cases.find(path.parent if path.is_file() else path))
    except ExceptionGroup as group:
        mistakes += group.exceptions
    else:
        found.append(_count(sum(len(file.cases) for file in files), "case"))
    return found


def _look_at_configuration(file: Path, mistakes: list[Exception]) -> str:
    from bridge.local.dry_run import dry_run  # noqa: PLC0415

    said = dry_run(file)
    mistakes += said.mistakes
    for warning in said.warnings:
        _note(f"{file}: Fluentd warns: {warning}")
    if said.bundled:
        _note(
            f"{file}: this Fluentd has no fluent-plugin-bridge: checked with the one that comes"
            " with this package"
        )
    return str(file)


def _load(argv: list[str]) -> Loaded:
    from bridge import checking  # noqa: PLC0415

    return checking.lenient(argv)


def _show(columns: type[Applied], rows: Sequence[Applied]) -> None:
    if not sys.stdout.isatty():
        for row in (map(str.upper, columns._fields), *rows):
            typer.echo("\t".join(map(str, row)))
        return
    from rich import box  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0))
    for name in ("", "tags", "filter", "takes → gives", "where"):
        table.add_column(name, overflow="fold")
    for row in rows:
        # As Text: annotations have brackets, which rich would take for markup.
        table.add_row(
            str(row.order),
            Text(row.tags),
            Text(row.filter, "bold") + Text(f"\n{row.runs}", "dim"),
            Text(f"{row.takes}\n→ {row.gives}"),
            Text(row.where),
        )
    Console().print(table)


def _note(text: str) -> None:
    typer.echo(text, err=True)  # what is on stdout is for the next program in the pipe


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
