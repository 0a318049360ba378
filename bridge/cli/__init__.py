"""The command line.

Each module here whose name has no underscore in front is a command: it has a function
``register(app)`` that adds it to the application.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

import bridge
from bridge.errors import LoadError, SampleError, SettingsError

_MISTAKE = 2  # the exit code that shells' own tools have for wrong usage


def application() -> typer.Typer:
    """Return the application with all its commands."""
    app = typer.Typer(
        name="fluent-bridge",
        help="Python filters for Fluentd, out of process.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,  # its tracebacks show local variables, and so secrets
        context_settings={"help_option_names": ["-h", "--help"]},
        # Boxes are for terminals; a pipe gets the plain text.
        rich_markup_mode="rich" if sys.stdout.isatty() else None,
    )
    app.callback()(_root)
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{__name__}.{module.name}").register(app)
    return app


def main(arguments: Sequence[str]) -> int:
    """Run a command and return the process's exit code.

    A user's mistake is shown as what is wrong and what to do, without a traceback.

    Args:
        arguments: the command and what follows it.
    """
    try:
        application()(list(arguments), prog_name="fluent-bridge")
    except SystemExit as end:  # how typer ends every command
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except (SettingsError, LoadError, SampleError) as error:
        _report(error)
        return _MISTAKE
    except ExceptionGroup as group:
        mistakes, others = group.split((SettingsError, LoadError, SampleError))
        if others is not None:
            raise
        _report(mistakes)
        return _MISTAKE
    return 0


def _root(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=_version,
            help="Show the version.",
        ),
    ] = False,
) -> None:
    """Say what all commands have in common."""


def _version(on: bool) -> None:  # noqa: FBT001 - as typer calls it
    if on:
        typer.echo(f"fluent-bridge {bridge.__version__}")
        raise typer.Exit


def _report(error: BaseException | None) -> None:
    console = Console(stderr=True, highlight=False)
    for mistake in _leaves(error):
        for line in str(mistake).splitlines():
            # As Text: file names and patterns have brackets, which rich would take for markup.
            console.print(Text.assemble(("error: ", "bold red"), line), soft_wrap=True)


def _leaves(error: BaseException | None) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    elif error is not None:
        yield error
