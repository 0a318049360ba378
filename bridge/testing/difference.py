"""How a value differs from the one that was wanted, field by field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

_LONGEST = 160  # characters of a value that are shown
_BEFORE = 40  # of a long text, those that are shown before the first that differs
_PLAIN = (str, int, float, bool, list, dict)


class _Nothing:
    """Stands where there is no value."""


NOTHING = _Nothing()

Path = tuple[str | int, ...]


class Difference(NamedTuple):
    """A value that is not the one wanted.

    Attributes:
        path: the keys and indices that lead to it.
        wanted: what was wanted; :data:`NOTHING` where it should not be there.
        got: what there is, likewise.
    """

    path: Path
    wanted: Any
    got: Any

    @property
    def name(self) -> str:
        """The path as it is written, as in ``items[0].price``."""
        return path_name(self.path)

    def texts(self) -> tuple[str, str]:
        """Return both values as they are shown, long ones cut to where they differ."""
        wanted, got = shown(self.wanted), shown(self.got)
        if max(len(wanted), len(got)) <= _LONGEST:
            return wanted, got
        pairs = zip(wanted, got, strict=False)
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(wanted), len(got)))
        return _around(wanted, same), _around(got, same)


def differences(wanted: Any, got: Any, path: Path = ()) -> Iterator[Difference]:
    """Return the values that differ, as deep as they go.

    Numbers are equal as JSON's are: 2 and 2.0, but not 1 and true.

    Args:
        wanted: a value.
        got: another.
        path: where they are.
    """
    if isinstance(wanted, dict) and isinstance(got, dict):
        for key in [*wanted, *(key for key in got if key not in wanted)]:
            values = wanted.get(key, NOTHING), got.get(key, NOTHING)
            yield from differences(*values, (*path, key))
    elif isinstance(wanted, list) and isinstance(got, list):
        for index in range(max(len(wanted), len(got))):
            first = wanted[index] if index < len(wanted) else NOTHING
            second = got[index] if index < len(got) else NOTHING
            yield from differences(first, second, (*path, index))
    elif not _same(wanted, got):
        yield Difference(path, wanted, got)


def path_name(path: Path) -> str:
    """Return a path as it is written; a key that has more than letters stands in quotes."""
    name = ""
    for step in path:
        if isinstance(step, int) and not isinstance(step, bool):
            name += f"[{step}]"
        else:
            text = str(step)
            name += "." if name else ""
            name += text if text and not set(text) & set('. []"\n') else shown(step)
    return name or "the record"


def shown(value: Any) -> str:
    """Return a value in one line, as JSON where it is JSON's."""
    if value is NOTHING:
        return "nothing"
    try:
        return json.dumps(value, ensure_ascii=False, default=repr)
    except (TypeError, ValueError, RecursionError):
        return repr(value)


def _same(wanted: Any, got: Any) -> bool:
    if isinstance(wanted, float) and wanted != wanted:  # noqa: PLR0124 - NaN
        return isinstance(got, float) and got != got  # noqa: PLR0124
    if isinstance(wanted, bool) or isinstance(got, bool):
        return wanted is got
    if isinstance(wanted, _PLAIN) and isinstance(got, _PLAIN):
        return bool(wanted == got)
    return type(wanted) is type(got) and bool(wanted == got)


def _around(text: str, place: int) -> str:
    start = max(place - _BEFORE, 0)
    end = start + _LONGEST
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"
