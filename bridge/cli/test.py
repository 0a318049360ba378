"""``fluent-bridge test``: case files, without pytest."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from bridge.errors import LoadError

if TYPE_CHECKING:
    from bridge.testing.case import Case, CaseFile
    from bridge.testing.harness import Harness
    from bridge.testing.harnesses import Harnesses

_COLOURS = {"-": "green", "+": "red"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("test", epilog="Example: fluent-bridge test filters -k crawler")(run_cases)


def run_cases(
    path: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Folder of *.cases.yaml, or one such file."),
    ] = Path(),
    *,
    text: Annotated[
        str | None, typer.Option("-k", metavar="TEXT", help="Only cases whose name holds this.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--filter", metavar="NAME", help="Only cases whose tag this filter matches."),
    ] = None,
    sidecar: Annotated[
        bool, typer.Option("--sidecar", help="Run them in a worker process of a real sidecar.")
    ] = False,
) -> None:
    """Run the case files of a folder, and of the folders in it.

    A case says what goes into the filters beside it and what must come out. Prints what differs,
    with file and line; the exit code is 0 if all cases passed, 1 if not, 2 if files are wrong.
    """
    from bridge.testing import cases  # noqa: PLC0415 - --help is to be quick
    from bridge.testing.harnesses import Harnesses  # noqa: PLC0415

    files = cases.read_all(cases.find(path))
    if not files:
        raise LoadError(
            f"no case files: put a file that ends in {cases.SUFFIX} beside the filters,"
            f" {cases.EXAMPLE}, or name the folder that has them",
            file=path,
        )
    console = Console(highlight=False)
    harnesses = Harnesses(sidecar=sidecar)
    try:
        done = _run(console, files, harnesses, text, name)
    finally:
        unclosed = harnesses.close()
    for line in unclosed:
        _print(console, line)
    if done.passed or done.failed:
        _summary(console, done)
    if done.mistakes:
        raise ExceptionGroup("the filters cannot be loaded", list(done.mistakes.values()))
    if not done.passed and not done.failed:
        raise LoadError(_nothing(text, name, done.filters), file=path)
    if done.failed or unclosed:
        raise typer.Exit(1)


@dataclass(slots=True)
class _Done:
    """What has been run.

    Attributes:
        passed: how many cases.
        failed: how many cases.
        filters: the names of those that were loaded.
        mistakes: why others were not, once each.
    """

    passed: int = 0
    failed: int = 0
    filters: set[str] = field(default_factory=set)
    mistakes: dict[str, Exception] = field(default_factory=dict)


def _run(
    console: Console,
    files: list[CaseFile],
    harnesses: Harnesses,
    text: str | None,
    name: str | None,
) -> _Done:
    from bridge.testing import verdict  # noqa: PLC0415

    done = _Done()
    for file in files:
        try:
            harness = harnesses.get(file)
        except ExceptionGroup as group:
            done.mistakes |= {str(one): one for one in group.exceptions}
            continue
        done.filters.update(known for known, _ in harness.filters)
        for case in _chosen(file, harness, text, name):
            if lines := verdict.run(case, harness):
                done.failed += 1
                _print(console, verdict.text(case, lines))
            else:
                done.passed += 1
    return done


def _chosen(file: CaseFile, harness: Harness, text: str | None, name: str | None) -> list[Case]:
    from bridge import tags  # noqa: PLC0415

    matchers = [tags.matcher(pattern) for known, pattern in harness.filters if known == name]
    return [
        case
        for case in file.cases
        if (text is None or text in case.name)
        and (name is None or any(matches(case.tag) for matches in matchers))
    ]


def _nothing(text: str | None, name: str | None, names: set[str]) -> str:
    if name is not None and name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(names))}"
        return f"no filter is called {name}: {advice}"
    asked = [f"-k {text}"] * (text is not None) + [f"--filter {name}"] * (name is not None)
    return f"no case fits {' and '.join(asked)}: leave that out to run all of them"


def _print(console: Console, text: str) -> None:
    head, *lines = text.splitlines()
    # As Text: records have brackets, which rich would take for markup.
    console.print(Text(head, "bold"), soft_wrap=True)
    for line in lines:
        console.print(Text(line, _COLOURS.get(line.lstrip()[:1], "")), soft_wrap=True)


def _summary(console: Console, done: _Done) -> None:
    text = f"{done.passed} {'case' if done.passed == 1 else 'cases'} passed"
    if done.failed:
        text += f", {done.failed} failed"
    console.print(Text(text, "bold red" if done.failed else "green"))
