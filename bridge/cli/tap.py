"""``fluent-bridge tap``: events of a running sidecar as they pass."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from bridge.cli._url import UrlOption, answered
from bridge.tap import DEFAULT_RATE, MOST_RATE

_QUIET = 3  # statuses, two seconds apart, after which the silence is explained


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: fluent-bridge tap 'ad.**' --fields price,user.country --limit 20")(
        tap
    )


def tap(
    pattern: Annotated[
        str,
        typer.Argument(
            metavar="PATTERN", help="Tags to look at, in Fluentd's patterns: * ** {a,b}."
        ),
    ] = "**",
    *,
    url: UrlOption = "http://127.0.0.1:24280",
    fields: Annotated[
        str | None,
        typer.Option(
            metavar="A,B.C", help="Show these fields alone: A, and the field C of the field B."
        ),
    ] = None,
    errors: Annotated[
        bool, typer.Option("--errors", help="Only events that go to the error stream.")
    ] = False,
    rate: Annotated[
        float,
        typer.Option(min=0.01, max=MOST_RATE, metavar="N", help="Most events a second."),
    ] = DEFAULT_RATE,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="End after so many events.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON lines, as where stdout is no terminal.")
    ] = False,
) -> None:
    """Show events of a running sidecar as they pass: what came, and what the filters made of it.

    Of many events it shows some, picked at random, so that it does not slow the sidecar. They are
    shown when the filters have run, delivered or not yet. Ctrl-C ends it.

    A sidecar shows events to who comes from its own host or pod: see its setting admin.tap.
    """
    from bridge.watch.port import Port  # noqa: PLC0415 - --help must not wait for these
    from bridge.watch.stream import Stream  # noqa: PLC0415

    paths = [path.strip() for path in fields.split(",") if path.strip()] if fields else []
    plain = as_json or not sys.stdout.isatty()
    show = _as_json if plain else _on_terminal()
    quiet = 0

    def note_silence() -> None:
        nonlocal quiet
        quiet += 1
        if quiet == _QUIET and not shown:
            passed = (
                "events pass, but none fails" if errors and stream.passed else "none passed yet"
            )
            typer.echo(f"waiting for events under {pattern}: {passed}", err=True)

    shown = 0
    with answered():
        stream = Stream(Port(url), pattern, rate=rate, errors=errors, on_status=note_silence)
        try:
            for line in stream:
                show(line, paths)
                shown += 1
                if shown == limit:
                    return
            if not plain:
                typer.echo("the sidecar ended", err=True)
        finally:
            if not plain:
                missed = f", {stream.missed:,} came faster than they were read"
                typer.echo(
                    f"{shown:,} events shown of {max(stream.passed, shown):,} that passed"
                    f"{missed if stream.missed else ''}",
                    err=True,
                )


def _as_json(line: bytes, paths: Sequence[str]) -> None:
    if paths:
        text = json.dumps(_selected(json.loads(line), paths), ensure_ascii=False)
        line = text.encode("utf-8", "backslashreplace")  # a lone surrogate is JSON's \udcXX
    typer.echo(line)


def _on_terminal() -> Callable[[bytes, Sequence[str]], None]:
    from rich.console import Console  # noqa: PLC0415 - a pipe can do without

    from bridge.watch.event import drawn  # noqa: PLC0415

    console = Console(highlight=False)

    def show(line: bytes, paths: Sequence[str]) -> None:
        event = json.loads(line)
        for text in drawn(_selected(event, paths) if paths else event):
            console.print(text, no_wrap=True, overflow="ellipsis", crop=True)

    return show


def _selected(event: dict[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    from bridge.watch.records import select  # noqa: PLC0415

    return {
        **event,
        "record": select(event["record"], paths),
        "results": [
            {**result, "record": select(result["record"], paths)} for result in event["results"]
        ],
    }
