"""``fluent-bridge run``: the sidecar."""

from __future__ import annotations

from typing import Annotated

import typer

from bridge.cli._flags import with_settings
from bridge.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: fluent-bridge run filters --listen.port 24224 --log.level debug")(
        with_settings(run)
    )


def run(
    settings: Settings,
    folder: Annotated[  # noqa: ARG001 - with_settings makes filters.path of it
        str | None, typer.Argument(metavar="FOLDER", help="Folder of filter files: filters.path.")
    ] = None,
) -> None:
    """Run the sidecar until SIGTERM: Forward in, the filters on every core, Forward out.

    A flag wins over the environment (FLUENT_BRIDGE_LISTEN__PORT), that over the file, and that
    over the default. `fluent-bridge settings` shows all of them and where each came from.
    """
    from bridge import app  # noqa: PLC0415 - --help must not wait for the whole sidecar

    raise typer.Exit(app.run(settings))
