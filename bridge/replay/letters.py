"""A dead letter: the event that failed, and why."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from bridge.decoding import decode_odd, decode_plain, is_map
from bridge.errors import BridgeError, NotAnEvent
from bridge.events import EventTime


class NotALetter(BridgeError):
    """What stands among dead letters is none; says why."""


class Place(NamedTuple):
    """Where a letter stands.

    Attributes:
        part: the partition; 0 in a file.
        offset: its offset; in a file its number, counted from 1.
        turn: its number among all that can be read there. Offsets have gaps, where transactions end
            for instance; turns have none.
    """

    part: int
    offset: int
    turn: int


class Letter(NamedTuple):
    """A dead letter.

    Attributes:
        tag: the event's tag.
        time: its time.
        record: its record.
        error: why it failed: ``class``, ``message``, ``filter``, ``attempts``, ``traceback``.
    """

    tag: str
    time: EventTime | int
    record: dict[Any, Any]
    error: dict[str, Any]


class Found(NamedTuple):
    """What stands at a place among letters.

    Attributes:
        place: where.
        name: the same for people.
        letter: the letter, or why it is none.
    """

    place: Place
    name: str
    letter: Letter | NotALetter


def letter_of(found: object) -> Letter:
    """Return the letter that a record of the error stream is.

    Args:
        found: the record.

    Raises:
        NotALetter: it is none.
    """
    if not isinstance(found, dict):
        raise NotALetter(f"it is no record but a {type(found).__name__}")
    if "beginning" in found and "error" not in found:
        # fluent-conf/exactly-once.conf, <label @ERROR>
        raise NotALetter("only the beginning of an event that Kafka refused; nothing to put back")
    error, tag, time, record = (found.get(name) for name in ("error", "tag", "time", "record"))
    if not isinstance(error, dict) or "class" not in error:
        raise NotALetter("it has no field 'error' with a 'class', as a dead letter has")
    if not isinstance(tag, str):
        raise NotALetter("its 'tag' is no text")
    if not isinstance(record, dict):
        raise NotALetter("its 'record' is no record")
    return Letter(tag, _time_of(time), record, error)


def unpack(value: bytes) -> dict[Any, Any]:
    """Return the record in a message of a dead-letter topic, msgpack or JSON.

    Args:
        value: the message's value.

    Raises:
        NotALetter: it is neither.
    """
    if value[:1] == b"{":  # in msgpack the number 123, and no map
        try:
            record: dict[Any, Any] = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise NotALetter(f"it begins as JSON, but is none: {error}") from None
        return record
    if not is_map(value):
        raise NotALetter("it is neither JSON nor msgpack with fields")
    try:
        return decode_plain(value) or decode_odd(value)
    except NotAnEvent as error:
        raise NotALetter(f"it begins as msgpack, but {error}") from None


def _time_of(text: object) -> EventTime | int:
    """Return the time that dead letters have as text: ISO 8601, or what no calendar has."""
    if isinstance(text, str):
        try:
            return EventTime.from_isoformat(text)
        except ValueError:
            pass
    try:
        return int(str(text))
    except ValueError:
        raise NotALetter(f"its 'time' {text!r} is no time") from None
