"""``fluent-bridge init``: a project to begin with."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from bridge import project


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: fluent-bridge init my-filters")(init)


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where to; it is made if it is not there.")
    ] = Path(),
) -> None:
    """Write a project to begin with: filters, cases, a test, settings and a kustomization.

    Its own tests pass at once. A file that is there already is never overwritten.
    """
    for name in project.write(folder):
        typer.echo(f"wrote {folder / name}")
    typer.echo()
    typer.echo("What comes next:")
    if folder.resolve() != Path.cwd():
        typer.echo(f"  cd {shlex.quote(str(folder))}")
    typer.echo("  fluent-bridge check    # which filter applies to which tag")
    typer.echo("  fluent-bridge test     # the cases in filters/*.cases.yaml")
    typer.echo("  less README.md         # and what else there is")
