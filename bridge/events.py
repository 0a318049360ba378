"""An event as a filter sees it: a tag, a time and a record."""

from __future__ import annotations

import datetime as dt
import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

_NANOSECONDS = 1_000_000_000
_SECONDS_AND_NANOSECONDS = struct.Struct(">II")


class EventTime(NamedTuple):
    """Fluentd's time of an event: seconds and nanoseconds since 1970, UTC.

    Source: Forward protocol v1, "EventTime Ext Format"; Fluentd's time.rb:23.
    """

    seconds: int
    nanoseconds: int = 0

    @classmethod
    def now(cls) -> EventTime:
        """Return the present time."""
        import time  # noqa: PLC0415 - only programs that make events need a clock

        return cls(*divmod(time.time_ns(), _NANOSECONDS))

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> EventTime:
        """Return the time that the 8 bytes of an ext of type 0 hold."""
        return cls(*_SECONDS_AND_NANOSECONDS.unpack(data))

    @classmethod
    def from_float(cls, seconds: float) -> EventTime:
        """Return the time nearest to a number of seconds since 1970."""
        return cls(*divmod(round(seconds * _NANOSECONDS), _NANOSECONDS))

    @classmethod
    def from_isoformat(cls, text: str) -> EventTime:
        """Return the time that :meth:`isoformat` wrote, to the nanosecond."""
        whole, _, fraction = text.removesuffix("Z").partition(".")
        moment = dt.datetime.fromisoformat(whole).replace(tzinfo=dt.UTC)
        return cls(int(moment.timestamp()), int(fraction.ljust(9, "0")) if fraction else 0)

    def to_bytes(self) -> bytes:
        """Return the 8 bytes of an ext of type 0."""
        return _SECONDS_AND_NANOSECONDS.pack(self.seconds, self.nanoseconds)

    def isoformat(self) -> str:
        """Return the time as ``2026-11-22T09:30:00.123456789Z``."""
        moment = dt.datetime.fromtimestamp(self.seconds, dt.UTC)
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{self.nanoseconds:09}Z"

    def __float__(self) -> float:
        return self.seconds + self.nanoseconds / _NANOSECONDS


@dataclass(slots=True)
class Event:
    """One event, for filters that need more than its record.

    Attributes:
        tag: the tag; a result with another tag is routed by it.
        time: an :class:`EventTime`, or whole seconds where the sender sent an integer.
        record: the record.
    """

    tag: str
    time: EventTime | int
    record: dict[Any, Any]
