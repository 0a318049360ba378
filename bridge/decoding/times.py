"""Times of events as bytes and as values."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.msgpack import Ext

from bridge.errors import NotAnEvent
from bridge.events import EventTime

_FIXEXT_8 = struct.Struct(">HII")  # 0xd7, type 0, seconds, nanoseconds
_decode = msgspec.msgpack.Decoder(int | float | Ext).decode
_encode = msgspec.msgpack.encode


def event_time_of(raw: Raw) -> EventTime | int:
    """Return a time of the Forward protocol; a float, which it does not know, as an EventTime.

    Raises:
        NotAnEvent: it is not a time.
    """
    try:
        head, seconds, nanoseconds = _FIXEXT_8.unpack(raw)
        if head == 0xD700:
            return EventTime._make((seconds, nanoseconds))
    except struct.error:
        pass
    try:
        time = _decode(raw)
        if isinstance(time, int):
            return time
        if isinstance(time, float):
            return EventTime.from_float(time)
        if time.code == 0 and len(time.data) == 8:
            return EventTime.from_bytes(time.data)
    except (msgspec.MsgspecError, ValueError, OverflowError):
        pass
    raise NotAnEvent("its time is neither an integer nor an EventTime")


def raw_of_time(time: EventTime | float) -> Raw:
    """Return a time encoded.

    Raises:
        TypeError: it is not a time.
        ValueError: it is out of the format's range.
    """
    if isinstance(time, float):
        time = EventTime.from_float(time)
    try:
        if isinstance(time, EventTime):
            return Raw(b"\xd7\x00" + time.to_bytes())
        if isinstance(time, int) and not isinstance(time, bool):
            return Raw(_encode(time))
    except (struct.error, OverflowError):
        raise ValueError(
            f"the time {time!r} is out of range: seconds since 1970 fit in 32 bits until 2106"
        ) from None
    raise TypeError(
        f"an event's time is a bridge.EventTime or whole seconds, not {type(time).__qualname__}"
    )


def holds_times(times: Sequence[Any]) -> bool:
    """Return whether undecoded times are all of the usual forms; False means: look at each."""
    # A loop would cost more than all other checks: joined, equal forms stand at equal distances.
    joined = b"".join(times)
    count = len(times)
    for width, head in ((10, b"\xd7\x00"), (5, b"\xce")):
        if len(joined) == width * count and all(
            joined[place::width] == head[place : place + 1] * count for place in range(len(head))
        ):
            return True
    return False
