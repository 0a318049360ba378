"""What the commands that look at a running sidecar have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated, TypeAlias

import typer

UrlOption: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="URL",
        help="The sidecar's admin port; kubectl port-forward brings a pod's here.",
    ),
]


@contextlib.contextmanager
def answered() -> Iterator[None]:
    """Tell what a sidecar did not answer, and end with 1, or with 2 where the question was wrong.

    Ctrl-C is how what goes on for ever is ended, and no error.
    """
    from bridge.watch.port import Refused, Unreachable  # noqa: PLC0415 - --help is quick

    try:
        yield
    except KeyboardInterrupt:
        pass
    except (Refused, Unreachable) as error:
        typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
        typer.echo(error, err=True)
        wrong = isinstance(error, Refused) and error.status == 400
        raise typer.Exit(2 if wrong else 1) from error
