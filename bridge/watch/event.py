"""An event and what became of it, drawn for a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

from bridge.watch.records import changes, text

_STYLES = {"changed": "yellow", "unchanged": "green", "dropped": "magenta", "error": "red"}
_PLACE = re.compile(r'File "(.+?)", line (\d+)')
_WIDEST_NAME = 24


def drawn(event: Mapping[str, Any]) -> Iterator[Text]:
    """Return an event as lines: a head, what stayed as it was, what changed, what went wrong.

    Args:
        event: a line of ``/tap``, decoded.
    """
    outcome = event["outcome"]
    results = event["results"]
    errors = event["errors"]
    style = _STYLES.get(outcome, "")
    head = Text.assemble(
        (event["time"].partition("T")[2][:15].removesuffix("Z"), "dim"),
        "  ",
        (_plain(event["tag"]), "bold cyan"),
        "  ",
        (outcome, f"bold {style}"),
    )
    if len(results) > 1:
        head.append(f" into {len(results) + event.get('results_left_out', 0)}", style)
    if event.get("truncated"):
        head.append("  long fields are cut", "dim")
    yield head
    if not results:
        yield _context(changes(event["record"], event["record"])[1])
    for number, result in enumerate(results, 1):
        if len(results) > 1:
            yield Text.assemble((f"  {number} of {len(results)}", "dim"))
        yield from _result(event, result)
    for error in errors:
        yield from _error(error)


def _result(event: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[Text]:
    differ, same = changes(event["record"], result["record"])
    for name in ("tag", "time"):
        if result[name] != event[name]:
            yield Text.assemble(
                ("  ~ ", "yellow"),
                (f"({name})  ", "bold"),
                (_plain(event[name]), "red"),
                ("  →  ", "dim"),
                (_plain(result[name]), "green"),
            )
    if same:
        yield _context(same)
    width = min(max((len(_plain(change.path)) for change in differ), default=0), _WIDEST_NAME)
    for path, before, after in differ:
        name = f"{_plain(path):{width}}  "
        if before is None:
            yield Text.assemble(("  + ", "green"), (name, "bold"), (str(after), "green"))
        elif after is None:
            yield Text.assemble(("  - ", "red"), (name, "bold"), (before, "red"))
        else:
            yield Text.assemble(
                ("  ~ ", "yellow"),
                (name, "bold"),
                (before, "red"),
                ("  →  ", "dim"),
                (after, "green"),
            )


def _context(same: Mapping[str, str]) -> Text:
    line = Text("    ", style="dim")
    line.append("  ".join(f"{_plain(path)}={value}" for path, value in same.items()))
    return line


def _error(error: Mapping[str, Any]) -> Iterator[Text]:
    where = "" if error["filter"] is None else f"  in {error['filter']}"
    places: Sequence[tuple[str, str]] = _PLACE.findall(error["traceback"] or "")
    if places:
        path, line = places[-1]
        where += f", {'/'.join(path.split('/')[-2:])}:{line}"
    message = _plain(error["message"].partition("\n")[0])
    yield Text.assemble(("  ✗ ", "bold red"), (error["class"], "bold red"), (f": {message}", "red"))
    if where:
        yield Text(f"   {_plain(where)}", style="dim")


def _plain(shown: str) -> str:
    """Return a text as a terminal can show it."""
    return text(shown)[1:-1].replace('\\"', '"')
