"""``fluent-bridge top``: what a running sidecar does."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from bridge.cli._url import UrlOption, answered


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Example: fluent-bridge top --interval 2"
        " ; for a script: fluent-bridge top --once --json | jq .events_in"
    )(top)


def top(
    *,
    url: UrlOption = "http://127.0.0.1:24280",
    interval: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="Time between looks.")
    ] = 1.0,
    once: Annotated[
        bool,
        typer.Option(
            "--once", help="Print what one interval gave, as where stdout is no terminal."
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print JSON, with --once of one interval, else a line each."),
    ] = False,
) -> None:
    """Show what a running sidecar does: rates, queues, processes, the slowest filters, errors.

    All rates are of the last interval. Filters stand in the order of the workers' time that they
    take; what is missing to 100 % is decoding and encoding. Ctrl-C ends it.
    """
    from bridge.watch import live  # noqa: PLC0415 - --help must not wait for it
    from bridge.watch.port import Port  # noqa: PLC0415

    with answered():
        port = Port(url)
        if as_json:
            live.print_json(port, interval, once=once)
        elif once or not sys.stdout.isatty():
            live.print_once(port, interval)
        else:
            live.show(port, interval)
