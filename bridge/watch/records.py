"""Records as JSON has them: some of their fields, and what two of them differ in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_MISSING: Any = object()
# What a terminal might obey; JSON escapes what is below 0x20.
_CONTROL = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Change(NamedTuple):
    """A field that differs.

    Attributes:
        path: the names that lead to it, as in ``user.name``.
        before: its value as JSON, None where it was not there.
        after: its value as JSON, None where it is not there.
    """

    path: str
    before: str | None
    after: str | None


def select(record: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """Return a record with some of its fields.

    Args:
        record: the record.
        paths: names, with dots where they lead into a field, as in ``user.name``.
    """
    chosen: dict[str, Any] = {}
    for path in paths:
        _copy(record, path, chosen)
    return chosen


def changes(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[list[Change], dict[str, str]]:
    """Return the fields that differ, and those that do not with their values as JSON.

    Args:
        before: a record.
        after: another.
    """
    old, new = dict(_leaves(before)), dict(_leaves(after))
    differ = [
        Change(path, None if was is _MISSING else text(was), None if now is _MISSING else text(now))
        for path in dict.fromkeys((*old, *new))
        if not _same(was := old.get(path, _MISSING), now := new.get(path, _MISSING))
    ]
    changed = {change.path for change in differ}
    return differ, {path: text(value) for path, value in new.items() if path not in changed}


def text(value: Any) -> str:
    """Return a value as JSON in one line that a terminal can show."""
    shown = json.dumps(value, ensure_ascii=False)
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", shown)


def _same(one: Any, other: Any) -> bool:
    # 1, 1.0 and true are equal to Python, and not the same to whoever reads them as JSON.
    return one is other or (
        one is not _MISSING and other is not _MISSING and text(one) == text(other)
    )


def _leaves(record: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        if isinstance(value, dict) and value and not _is_value(value):
            yield from _leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _is_value(value: dict[str, Any]) -> bool:
    """Return whether a map stands for a value that JSON has not, as ``{"$bin": "..."}`` does."""
    return len(value) == 1 and next(iter(value)).startswith("$")


def _copy(record: Mapping[str, Any], path: str, chosen: dict[str, Any]) -> None:
    if path in record:  # a name may hold a dot
        chosen[path] = record[path]
        return
    name, _, rest = path.partition(".")
    inner = record.get(name)
    if rest and isinstance(inner, dict):
        into: dict[str, Any] = {}
        _copy(inner, rest, into)
        if into:
            held = chosen.setdefault(name, {})
            if isinstance(held, dict):
                held.update(into)
