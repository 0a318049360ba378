"""Which letters are meant: conditions on tag, error and record, and a span of time."""

from __future__ import annotations

import datetime as dt
import difflib
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from bridge.events import EventTime
from bridge.replay.letters import Letter
from bridge.tags import matcher

Condition = Callable[[Letter], bool]

_CONDITION = re.compile(r"\s*([^=!~\s]+)\s*(!=|!~|=|~)\s*(.*?)\s*", re.DOTALL)
_ERROR_FIELDS = ("class", "message", "filter", "attempts", "traceback")
_SUBJECTS = ("tag", *(f"error.{field}" for field in _ERROR_FIELDS), "record.")
_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def condition(text: str, document: str = "message") -> Condition:
    """Return the condition that ``--where`` names.

    Args:
        text: ``SUBJECT = VALUE``, or with ``!=``, ``~`` (a regular expression is found in it) or
            ``!~``. The subject is ``tag``, whose value is a pattern as in Fluentd's ``<match>``;
            ``error.class`` and what else an error has; or ``record.`` and a field, with more dots
            for the fields in it. A value that is no text in the record is compared as JSON; a field
            that is missing is ``null``.
        document: the field of records that may hold a JSON document, whose fields are looked at
            where the record has none of that name. It is what filters see with
            ``filters.payload: json``, and so what users know as the record.

    Raises:
        ValueError: it is no condition; says why and what to do.
    """
    parts = _CONDITION.fullmatch(text)
    if parts is None:
        raise ValueError(
            f"{text!r} is no condition: write it as 'error.class=Reject', with one of = != ~ !~"
        )
    subject, operator, value = parts.groups()
    if subject == "tag" and operator in {"=", "!="}:
        return _negated(_tag_matches(value), operator == "!=")
    value_of = _subject(subject, text, document)
    if "~" in operator:
        try:
            search = re.compile(value).search
        except re.error as error:
            raise ValueError(
                f"{text!r}: {value!r} is no regular expression: {error}; a \\ goes before a sign"
                " that stands for itself"
            ) from None
        return _negated(
            lambda letter: search(_text(value_of(letter))) is not None, operator == "!~"
        )
    return _negated(lambda letter: _equal(value_of(letter), value), operator == "!=")


def moment(text: str, now: dt.datetime) -> EventTime:
    """Return the time that ``--since`` or ``--until`` names.

    Args:
        text: ISO 8601, UTC if it names no zone; or how long ago: ``30m``, ``2h``, ``7d``.
        now: the present.

    Raises:
        ValueError: it is no time.
    """
    if ago := _AGO.fullmatch(text):
        return EventTime.from_float(now.timestamp() - float(ago[1]) * _UNITS[ago[2]])
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no time: write 2026-11-22T09:30:00Z, or how long ago: 30m, 2h, 7d"
        ) from None
    if time.tzinfo is None:
        time = time.replace(tzinfo=dt.UTC)
    return EventTime.from_float(time.timestamp())


def selection(
    conditions: Iterable[str],
    since: EventTime | None = None,
    until: EventTime | None = None,
    document: str = "message",
) -> Condition:
    """Return a condition that holds where all do.

    Args:
        conditions: each as :func:`condition` takes it.
        since: the earliest time of events.
        until: the time before which events are.
        document: see :func:`condition`.

    Raises:
        ValueError: a condition is none.
    """
    wanted = [condition(text, document) for text in conditions]
    if since is not None:
        wanted.append(lambda letter: _seconds(letter) >= since)
    if until is not None:
        wanted.append(lambda letter: _seconds(letter) < until)
    return lambda letter: all(holds(letter) for holds in wanted)


def _tag_matches(pattern: str) -> Condition:
    matches = matcher(pattern)
    return lambda letter: matches(letter.tag)


def _negated(holds: Condition, negated: bool) -> Condition:  # noqa: FBT001 - two lines away
    return (lambda letter: not holds(letter)) if negated else holds


def _subject(subject: str, text: str, document: str) -> Callable[[Letter], Any]:
    root, _, path = subject.partition(".")
    if subject == "tag":
        return lambda letter: letter.tag
    if root == "error" and path in _ERROR_FIELDS:
        return lambda letter: letter.error.get(path)
    if root == "record" and path:
        names = path.split(".")
        return lambda letter: _field(letter.record, names, document)
    close = difflib.get_close_matches(subject, _SUBJECTS, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"{text!r}: a letter has no {subject!r}{hint or '.'} There are {', '.join(_SUBJECTS)}FIELD"
    )


def _field(record: dict[Any, Any], names: list[str], document: str) -> Any:
    if names[0] not in record and isinstance(text := record.get(document), str | bytes):
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            return None
    value: Any = record
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _equal(value: Any, text: str) -> bool:
    if isinstance(value, str):
        return value == text
    if isinstance(value, bytes):
        return value == text.encode("utf-8", "surrogateescape")
    try:
        wanted = json.loads(text)
    except ValueError:
        return False
    # In Python, not in JSON, true is 1.
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return json.dumps(value, default=str)


def _seconds(letter: Letter) -> EventTime:
    return letter.time if isinstance(letter.time, EventTime) else EventTime(letter.time)
