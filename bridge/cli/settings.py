"""``fluent-bridge settings``: every setting, its value, and where that came from."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bridge.cli._flags import with_settings
from bridge.settings import Settings, Shown

_COLUMNS = ("setting", "value", "from", "default", "meaning")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("settings", epilog="Example: fluent-bridge settings --yaml > bridge.yaml")(
        with_settings(show)
    )


def show(
    settings: Settings,
    folder: Annotated[  # noqa: ARG001 - with_settings makes filters.path of it
        str | None, typer.Argument(metavar="FOLDER", help="Folder of filter files: filters.path.")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="Print a file that --config takes, with the meanings.")
    ] = False,
) -> None:
    """Show every setting: what it means, its default, its value, and where that came from.

    Takes the flags, environment and file that `run` takes, and checks them. Secrets are masked.
    """
    shown = settings.show()
    if as_json and as_yaml:
        raise typer.BadParameter("--json and --yaml exclude each other")
    if as_json:
        typer.echo(_as_json(shown))
    elif as_yaml:
        typer.echo(_as_yaml(shown), nl=False)
    elif sys.stdout.isatty():
        Console().print(_as_table(shown))
    else:
        typer.echo(_as_text(shown))


def _as_json(shown: Sequence[Shown]) -> str:
    return json.dumps(
        [
            {
                "name": each.setting.name,
                "value": each.value,
                "origin": each.origin,
                "default": each.setting.default,
                "unit": each.setting.unit,
                "meaning": each.setting.meaning,
                "allowed": each.setting.allowed,
                "flag": each.setting.flag,
                "variable": each.setting.variable,
            }
            for each in shown
        ],
        indent=2,
    )


def _as_yaml(shown: Sequence[Shown]) -> str:
    lines: list[str] = []
    for group, members in itertools.groupby(shown, key=lambda each: each.setting.path[0]):
        lines.append(f"{group}:")
        for each in members:
            setting = each.setting
            unit = f" ({setting.unit})" if setting.unit else ""
            value = yaml.safe_dump({setting.path[1]: each.value}, width=1 << 16)
            lines.append(f"  # {setting.meaning}{unit}")
            # A mask is no value that a file could give back.
            lines += [f"  {'# ' if each.masked else ''}{line}" for line in value.splitlines()]
    return "\n".join(lines) + "\n"


def _as_table(shown: Sequence[Shown]) -> Table:
    table = Table(*_COLUMNS, header_style="bold")
    for _, members in itertools.groupby(shown, key=lambda each: each.setting.path[0]):
        table.add_section()
        for each in members:
            # As Text: values have brackets, which rich would take for markup.
            cells = [Text(cell) for cell in _row(each)]
            table.add_row(*cells, style="" if each.origin == "default" else "bold")
    return table


def _as_text(shown: Sequence[Shown]) -> str:
    rows = [tuple(column.upper() for column in _COLUMNS), *(_row(each) for each in shown)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _row(shown: Shown) -> tuple[str, ...]:
    setting = shown.setting
    value, default = setting.text(shown.value), setting.text(setting.default)
    return setting.name, value, shown.origin, default, setting.meaning
