"""``fluent-bridge run``: the sidecar."""

from __future__ import annotations

from typing import Annotated

import typer

from bridge.cli._dev import for_development, show
from bridge.cli._flags import with_settings
from bridge.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Example: fluent-bridge run filters --listen.port 24224 --log.level debug\n\n"
        "While you write filters: fluent-bridge run filters --dev"
    )(with_settings(run))


def run(
    settings: Settings,
    folder: Annotated[  # noqa: ARG001 - with_settings makes filters.path of it
        str | None, typer.Argument(metavar="FOLDER", help="Folder of filter files: filters.path.")
    ] = None,
    *,
    dev: Annotated[
        bool,
        typer.Option(
            "--dev",
            help="For work on filters: reload on save and print what changed, one worker and a log"
            " for people unless set.",
        ),
    ] = False,
) -> None:
    """Run the sidecar until SIGTERM: Forward in, the filters on every core, Forward out.

    A flag wins over the environment (FLUENT_BRIDGE_LISTEN__PORT), that over the file, and that
    over the default. `fluent-bridge settings` shows all of them and where each came from.

    Changed filters are loaded while it runs, SIGHUP does so at once; what cannot be loaded leaves
    those from before in charge.
    """
    from bridge import app  # noqa: PLC0415 - --help must not wait for the whole sidecar

    if dev:
        raise typer.Exit(app.run(for_development(settings), report=show))
    raise typer.Exit(app.run(settings))
