"""Cuts a batch between events, so that several workers run it at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgpack

from bridge import tags
from bridge.workers import wire

# Half a millisecond of a light filter's work: what a piece costs in the transport process is a
# tenth of that.
SMALLEST_PIECE = 64 << 10
_STEP = 4096  # bytes at a time to the end of the event that a cut would fall into
_MOST_TAGS = 1024


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a batch.

    Attributes:
        entries: its events.
        count: how many they are, None if nobody counted.
    """

    entries: memoryview
    count: int | None


class Uncut:
    """Knows the tags whose batches must stay whole.

    A filter over all events of a chunk must see all of them. It does not only see the tags that
    match its own pattern: a filter before it may give any event such a tag. So a batch is cut only
    if, from the first filter that matches its tag on, there is no filter over all events.

    Args:
        filters: all filters, in order.
    """

    def __init__(self, filters: Sequence[wire.Filter]) -> None:
        last = max((i for i, one in enumerate(filters) if one.batch), default=-1)
        self._before: list[Callable[[str], bool]] = [
            tags.matcher(one.pattern) for one in filters[: last + 1]
        ]
        self._known: dict[str, bool] = {}

    def __contains__(self, tag: str) -> bool:
        if not self._before:
            return False
        known = self._known.get(tag)
        if known is None:
            if len(self._known) >= _MOST_TAGS:
                self._known.clear()
            known = self._known[tag] = any(matches(tag) for matches in self._before)
        return known


def cut(entries: memoryview, count: int | None, most: int) -> list[Piece]:
    """Return a batch in pieces of about the same size, in order.

    Nothing is decoded. Where the entries are not msgpack, or nest deeper than the unpacker goes,
    the batch stays whole: a worker will say what is wrong with it.

    Args:
        entries: packed entries.
        count: how many they are said to be; a hint.
        most: how many pieces to make at most.
    """
    size = len(entries)
    most = min(most, size // SMALLEST_PIECE)
    if most < 2:
        return [Piece(entries, count)]
    try:
        ends = _ends(entries, [size * number // most for number in range(1, most)])
    except ValueError:
        return [Piece(entries, count)]
    pieces: list[Piece] = []
    begin = events = 0
    for end, passed in ends:
        pieces.append(Piece(entries[begin:end], passed - events))
        begin, events = end, passed
    rest = None if count is None or count <= events else count - events
    return [*pieces, Piece(entries[begin:], rest)]


def _ends(entries: memoryview, goals: Sequence[int]) -> list[tuple[int, int]]:
    """Return the end of the first event after each goal, and how many events end there or before.

    Raises:
        ValueError: the entries are malformed or nest too deep.
    """
    size = len(entries)
    unpacker = msgpack.Unpacker(max_buffer_size=size)
    skip = unpacker.skip
    found: list[tuple[int, int]] = []
    fed = events = 0
    for goal in goals:
        if fed < goal:
            unpacker.feed(entries[fed:goal])
            fed = goal
        try:
            while True:
                skip()
                events += 1
        except msgpack.OutOfData:
            pass
        while True:
            if fed == size:
                return found
            unpacker.feed(entries[fed : fed + _STEP])
            fed = min(fed + _STEP, size)
            try:
                skip()
            except msgpack.OutOfData:
                continue
            events += 1
            break
        end = unpacker.tell()
        if end == size:
            break
        found.append((end, events))
    return found
