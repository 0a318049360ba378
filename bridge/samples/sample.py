"""One event of a file, and many of them as chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from msgspec import Raw

from bridge.decoding import decode_odd, decode_plain, entry_of, event_time_of, skip
from bridge.events import EventTime
from bridge.forward import Chunk


class Sample(NamedTuple):
    """One event, packed.

    Attributes:
        tag: its tag where the file says one, else None.
        entry: ``[time, record]`` in msgpack, the record as it came where the file is msgpack.
        place: where it stands: the line where the file is text, counted from 1, else the offset in
            bytes; of an event in a Forward message the message's.
    """

    tag: str | None
    entry: bytes
    place: int

    @property
    def time(self) -> EventTime | int:
        """Its time, decoded at each call."""
        raw, _ = entry_of(self.entry)
        data = bytes(raw)
        if data[0] == 0x92:  # fluent-bit's [time, metadata]
            raw = Raw(data[1 : skip(data, 1)])
        return event_time_of(raw)

    @property
    def record(self) -> dict[Any, Any]:
        """Its record, as filters get it, decoded at each call."""
        data = bytes(entry_of(self.entry)[1])
        record = decode_plain(data)
        return decode_odd(data) if record is None else record


def chunks(
    samples: Iterable[Sample], size: int, *, tag: str | None = None, untagged: str = ""
) -> Iterator[Chunk]:
    """Return samples as chunks, in their order, each of events of one tag.

    Args:
        samples: the events; read no faster than the chunks are taken.
        size: most events of a chunk.
        tag: the tag for all of them, whatever the file says.
        untagged: the tag for those that have none.
    """
    current = ""
    entries: list[bytes] = []
    for sample in samples:
        its = tag or sample.tag or untagged
        if entries and (its != current or len(entries) == size):
            yield Chunk(current, b"".join(entries), len(entries), None, None)
            entries = []
        current = its
        entries.append(sample.entry)
    if entries:
        yield Chunk(current, b"".join(entries), len(entries), None, None)
