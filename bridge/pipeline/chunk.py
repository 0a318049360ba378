"""Entries, decoded in one call where that is possible, and one by one where it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Raw

from bridge.decoding import (
    array_header,
    boundaries,
    decode_odd,
    entry_of,
    event_time_of,
    holds_times,
    is_map,
    may_hold_timestamp,
)
from bridge.errors import NotAnEvent

# The time as it came and the record: a dict, or not decoded.
Item = tuple[Raw, Any]


class _AnyMap(msgspec.Struct):
    """Decodes from any map whose keys are text, without making anything of its fields."""


_decode_items = msgspec.msgpack.Decoder(list[tuple[Raw, dict[Any, Any]]]).decode
_decode_raw_items = msgspec.msgpack.Decoder(list[tuple[Raw, Raw]]).decode
_decode_checked_items = msgspec.msgpack.Decoder(list[tuple[Raw, _AnyMap]]).decode
_decode_raws = msgspec.msgpack.Decoder(list[Raw]).decode
_decode_item = msgspec.msgpack.Decoder(tuple[Raw, dict[Any, Any]]).decode

_SMALLEST_EVENT = 3  # bytes: an array of a small integer and an empty map


class Chunk:
    """Entries, or a range of them.

    Args:
        entries: packed entries.
        count: how many they are said to be: a hint that is tried first.
        base: index of the first event and its offset, for messages.
        packed: the entries with the header of an array before them, if their number is known.

    Attributes:
        entries: the entries as they came.
        items: the items as they were first decoded.
        odd: items whose records msgspec would not give back as they were: the time's id to its
            index.
    """

    def __init__(
        self,
        entries: bytes | bytearray | memoryview,
        count: int | None,
        base: tuple[int, int] = (0, 0),
        packed: bytes | None = None,
    ) -> None:
        self.entries = entries
        self.items: list[Item] = []
        self.odd: dict[int, int] = {}
        self._base = base
        self._packed = packed
        self._count = count
        self._offsets: list[int] | None = None
        self._indices: dict[int, int] = {}
        self._originals: list[Item] = []
        self._moved: dict[int, tuple[Raw, Raw]] = {}

    def decode(self) -> list[Item]:
        """Return times and decoded records.

        Raises:
            NotAnEvent: an entry is not one.
        """
        data = self._packed or bytes(self.entries)
        suspect = may_hold_timestamp(data, 64 + 2 * (self._count or 0))
        items = None if suspect else self.whole(_decode_items)
        if items is None:
            items = self._decode_each()
        return self._checked(items)

    def decode_as(self, decode: Callable[[bytes], list[Item]]) -> list[Item] | None:
        """Return times and records as a decoder makes them, None if it cannot.

        Args:
            decode: takes the entries as one array.

        Raises:
            NotAnEvent: an entry is not one.
        """
        items = self.whole(decode)
        return None if items is None else self._checked(items)

    def decode_raw(self) -> list[Item]:
        """Return times and records, neither decoded, nor are the records checked to be maps.

        Raises:
            NotAnEvent: an entry is not one.
        """
        items = self.whole(_decode_raw_items)
        if items is None:
            items = [self._entry(index) for index in range(self.length)]
        return self._checked(items)

    def check(self) -> int:
        """Return how many events there are, having found that they are events.

        Raises:
            NotAnEvent: an entry is not one.
        """
        items: list[Any] | None = self.whole(_decode_checked_items)
        if items is None:
            items = [self._entry(index) for index in range(self.length)]
        return len(self._checked(items))

    def whole(self, decode: Callable[[bytes], list[Any]]) -> list[Any] | None:
        """Return what a decoder makes of the entries as one array, None if it cannot."""
        if self._packed is None:
            count = self._count
            if count is not None and 0 <= count * _SMALLEST_EVENT <= len(self.entries):
                packed = b"".join((array_header(count), self.entries))
                decoded: list[Any] | None = _try(decode, packed)
                if decoded is not None:
                    self._packed = packed
                    return decoded
            if self.length == count:
                return None
            self._packed = b"".join((array_header(self.length), self.entries))
        items: list[Any] | None = _try(decode, self._packed)
        return items

    @property
    def length(self) -> int:
        """How many entries there are, counted."""
        return len(self.offsets) - 1

    @property
    def offsets(self) -> list[int]:
        """Where each entry begins, and the end of the last."""
        if self._offsets is None:
            self._offsets = boundaries(self.entries)
        return self._offsets

    def part(self, start: int, stop: int | None) -> Chunk:
        """Return some of the events as a chunk.

        Args:
            start: the index of the first.
            stop: the index before which they end; None is the end.
        """
        stop = self.length if stop is None else min(stop, self.length)
        start = min(start, stop)
        begin = self.offsets[start]
        entries = memoryview(self.entries)[begin : self.offsets[stop]]
        return Chunk(entries, stop - start, (self._base[0] + start, self._base[1] + begin))

    def slices(self, size: int) -> Iterator[Chunk]:
        """Return the events as chunks of a size.

        Args:
            size: events.
        """
        raws = self.whole(_decode_raws)
        if raws is None:
            for start in range(0, self.length, size):
                yield self.part(start, start + size)
            return
        first, begin = self._base
        for start in range(0, len(raws), size):
            some = raws[start : start + size]
            header = array_header(len(some))
            packed = b"".join((header, *some))
            entries = memoryview(packed)[len(header) :]
            yield Chunk(entries, len(some), (first + start, begin), packed)
            begin += len(entries)

    def raws(self) -> list[Raw]:
        """Return the entries, each as it came."""
        raws = self.whole(_decode_raws)
        if raws is None:
            data = bytes(self.entries)
            offsets = self.offsets
            raws = [Raw(data[offsets[i] : offsets[i + 1]]) for i in range(self.length)]
        return raws

    def index(self, time: Raw) -> int:
        """Return the index of the event that an item comes from.

        Args:
            time: the item's time, the very object.
        """
        if not self._indices:
            self._indices = {id(item[0]): index for index, item in enumerate(self.items)}
        while (moved := self._moved.get(id(time))) is not None:
            time = moved[1]
        return self._indices[id(time)]

    def original(self, time: Raw) -> Item:
        """Return the undecoded time and record of the event that an item comes from."""
        if not self._originals:
            originals = self.whole(_decode_raw_items)
            if originals is None:
                originals = [self._entry(index) for index in range(self.length)]
            self._originals = originals
        return self._originals[self.index(time)]

    def move(self, old: Raw, new: Raw) -> None:
        """Note that an item got another time."""
        self._moved[id(new)] = (new, old)

    def require_map(self, time: Raw, record: Raw) -> None:
        """Raise NotAnEvent if an undecoded record is not a map."""
        if not is_map(record):
            raise self._not_an_event(self.index(time), "its record is not a map")

    def _decode_each(self) -> list[Item]:
        items: list[Item] = []
        data = bytes(self.entries)
        offsets = self.offsets
        for index in range(self.length):
            entry = data[offsets[index] : offsets[index + 1]]
            item = None if may_hold_timestamp(entry) else _try(_decode_item, entry)
            if item is None:
                time, record = self._entry(index)
                item = (time, decode_odd(record))
                self.odd[id(time)] = index
            items.append(item)
        return items

    def _entry(self, index: int) -> tuple[Raw, Raw]:
        offsets = self.offsets
        try:
            return entry_of(memoryview(self.entries)[offsets[index] : offsets[index + 1]])
        except NotAnEvent as error:
            raise self._not_an_event(index, str(error)) from None

    def _checked(self, items: list[Item]) -> list[Item]:
        self.items = items
        times = [item[0] for item in items]
        if times and not holds_times(times):
            for index, time in enumerate(times):
                try:
                    event_time_of(time)
                except NotAnEvent as error:
                    raise self._not_an_event(index, str(error)) from None
        return items

    def _not_an_event(self, index: int, why: str) -> NotAnEvent:
        first, begin = self._base
        return NotAnEvent(f"event {first + index} at byte {begin + self.offsets[index]}: {why}")


def _try(decode: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
