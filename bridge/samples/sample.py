"""One event of a file, and many of them as chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from bridge.decoding import (
    Buffer,
    as_json,
    boundaries,
    decode_odd,
    decode_plain,
    encode,
    entry_of,
    event_time_of,
    skip,
    text_header,
)
from bridge.errors import SampleError
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


def chunks(samples: Iterable[Sample], size: int, *, tag: str | None = None) -> Iterator[Chunk]:
    """Return samples as chunks, in their order, each of events of one tag.

    Args:
        samples: the events; read no faster than the chunks are taken.
        size: most events of a chunk.
        tag: the tag for all of them, whatever the file says; events without any have the tag "".

    Raises:
        SampleError: from the samples; those before the mistake have been returned by then.
    """
    current = ""
    entries: list[bytes] = []
    wrong: SampleError | None = None
    try:
        for sample in samples:
            its = tag or sample.tag or ""
            if entries and (its != current or len(entries) == size):
                yield _chunk(current, entries)
                entries = []
            current = its
            entries.append(sample.entry)
    except SampleError as error:
        wrong = error
    if entries:
        yield _chunk(current, entries)
    if wrong is not None:
        raise wrong


def unpacked(entries: Buffer, tag: str | None = None) -> Iterator[Sample]:
    """Return packed entries as samples.

    Args:
        entries: the entries, one after the other.
        tag: their tag.

    Raises:
        NotAnEvent: an entry is malformed.
    """
    data = bytes(entries)
    for start, end in pairwise(boundaries(data)):
        yield Sample(tag, data[start:end], start)


def documents(samples: Iterable[Sample], key: str) -> Iterator[Sample]:
    """Return samples as inputs that do not parse make events: the record as JSON text in one field.

    That is what filters want whose payload is JSON. Records that have the field already stay as
    they are.

    Args:
        samples: the events.
        key: the field.
    """
    head = b"\x81" + encode(key)
    for sample in samples:
        record = sample.record
        if key in record:
            yield sample
            continue
        time, raw = entry_of(sample.entry)
        try:
            text = msgspec.json.encode(record)
        except (TypeError, ValueError, RecursionError):
            text = as_json(bytes(raw)).encode()
        entry = b"\x92" + bytes(time) + head + text_header(len(text)) + text
        yield Sample(sample.tag, entry, sample.place)


def _chunk(tag: str, entries: list[bytes]) -> Chunk:
    return Chunk(tag, b"".join(entries), len(entries), None, None)
