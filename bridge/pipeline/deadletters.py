"""Dead letters: what goes to the error stream in an event's place."""

from __future__ import annotations

import datetime as dt
import traceback
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any

import msgspec
from msgspec import Raw

from bridge.decoding import encode_odd, event_time_of
from bridge.errors import NotAnEvent, Reject
from bridge.events import EventTime

_LONGEST_MESSAGE = 2_000  # characters; a message may hold the whole record
_LONGEST_TRACEBACK = 8_000
_MOST_STACKS = 256

# To format a stack takes longer than to run most filters, and the events of a chunk fail in few
# places.
_stacks: dict[tuple[tuple[CodeType, str, int], ...], str] = {}


class Failure(msgspec.Struct, frozen=True):
    """Why an event failed.

    Attributes:
        error_class: the exception's class.
        message: what it says.
        traceback: where it was raised, from the user's file on; None where nothing was raised
            there.
        filter: the filter's name; None where the event came to none.
    """

    error_class: str
    message: str
    traceback: str | None
    filter: str | None


def failure_of(error: BaseException, name: str | None, file: Path | None = None) -> Failure:
    """Return why an event failed.

    Args:
        error: what was raised.
        name: the filter's name.
        file: the filter's file: frames before it are ours. None where the filter was not called.
    """
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - the user's own __str__
        message = "(its message cannot be shown)"
    where = None
    if file is not None and not isinstance(error, Reject):
        where = _traceback(error, str(file), message)
    return Failure(type(error).__qualname__, _bounded(message, _LONGEST_MESSAGE), where, name)


def dead_letter(
    failure: Failure, original: tuple[Raw, Raw], tag: str, attempts: int
) -> tuple[Raw, dict[str, Any]]:
    """Return an entry for the error stream.

    Args:
        failure: why the event failed.
        original: its time and record as they came.
        tag: its tag as it came.
        attempts: how many times it was run.
    """
    time, record = original
    return time, {
        "error": {
            "class": failure.error_class,
            "message": failure.message,
            "filter": failure.filter,
            "traceback": failure.traceback,
            "attempts": attempts,
        },
        "tag": Raw(encode_odd(tag)),  # it may not be UTF-8
        "time": time_text(time),
        "record": record,
    }


def reason_of(letter: dict[Any, Any]) -> str:
    """Return in a line why the event of a dead letter failed."""
    error = letter["error"]
    where = f"{error['filter']}: " if error["filter"] else ""
    return f"{where}{error['class']}: {error['message']}"


def time_text(raw: Raw) -> str:
    """Return an event's time as people read it."""
    try:
        time = event_time_of(raw)
        if isinstance(time, EventTime):
            return time.isoformat()
        return f"{dt.datetime.fromtimestamp(time, dt.UTC):%Y-%m-%dT%H:%M:%S}Z"
    except (NotAnEvent, ValueError, OverflowError, OSError):  # an integer may be any
        return str(msgspec.msgpack.decode(raw))


def _traceback(error: BaseException, file: str, message: str) -> str:
    start: TracebackType | None = error.__traceback__
    while start is not None and start.tb_frame.f_code.co_filename != file:
        start = start.tb_next
    if start is None:
        start = error.__traceback__
    if error.__cause__ is not None or (error.__context__ and not error.__suppress_context__):
        return _bounded(
            "".join(traceback.format_exception(error.with_traceback(start))), _LONGEST_TRACEBACK
        )
    # Code is equal to the same code in another file.
    places = tuple(
        (frame.f_code, frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(start)
    )
    stack = _stacks.get(places)
    if stack is None:
        if len(_stacks) >= _MOST_STACKS:
            _stacks.clear()
        stack = _stacks[places] = "".join(traceback.format_tb(start))
    head = "Traceback (most recent call last):\n"
    return _bounded(f"{head}{stack}{type(error).__qualname__}: {message}", _LONGEST_TRACEBACK)


def _bounded(text: str, longest: int) -> str:
    if len(text) > longest:
        half = longest // 2
        text = f"{text[:half]}\n... ({len(text) - longest} characters left out) ...\n{text[-half:]}"
    return text.encode("utf-8", "backslashreplace").decode()
