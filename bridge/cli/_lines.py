"""The lines that ``fluent-bridge decode`` prints."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Raw

from bridge.decoding import as_json, encode_odd, entry_of, event_time_of, skip
from bridge.errors import NotAnEvent
from bridge.events import EventTime
from bridge.pipeline.deadletters import time_text
from bridge.samples import Source, objects, read

_NO_METADATA = b"\x80"


def values(source: Source) -> Iterator[str]:
    """Return a line for each msgpack object, whatever it is.

    Args:
        source: the stream.

    Raises:
        SampleError: it is cut off, or no msgpack.
    """
    for _, data in objects(source):
        yield as_json(data)


def events(source: Source, *, as_objects: bool) -> Iterator[str]:
    """Return a line for each event.

    Args:
        source: the stream.
        as_objects: whether a line is a JSON object rather than columns with tabs between.

    Raises:
        SampleError: it is cut off, or holds something else.
    """
    asked: list[bool] = []  # whether the event that comes has no time of its own

    def clock() -> EventTime:
        asked.append(True)
        return EventTime(0)

    line = _object if as_objects else _columns
    for sample in read(source, clock=clock):
        time, record = map(bytes, entry_of(sample.entry))
        metadata = _NO_METADATA
        if time.startswith(b"\x92"):  # fluent-bit's [time, metadata]
            end = skip(time, 1)
            time, metadata = time[1:end], time[end:]
        yield line(
            None if asked else _time(time),
            sample.tag,
            as_json(record),
            None if metadata == _NO_METADATA else as_json(metadata),
        )
        asked.clear()


def _time(data: bytes) -> str:
    raw = Raw(data)
    try:
        event_time_of(raw)
    except NotAnEvent:  # in a message, whose entries nobody has looked at
        return as_json(data)
    return time_text(raw)


def _text(text: str) -> str:
    return as_json(encode_odd(text))


def _columns(time: str | None, tag: str | None, record: str, metadata: str | None) -> str:
    # As in JSON, for a tag may hold a tab.
    columns = [time or "-", "-" if tag is None else _text(tag)[1:-1], record]
    return "\t".join(columns if metadata is None else [*columns, metadata])


def _object(time: str | None, tag: str | None, record: str, metadata: str | None) -> str:
    members = {
        "time": "null" if time is None else _text(time),
        "tag": "null" if tag is None else _text(tag),
        "record": record,
    }
    if metadata is not None:
        members["metadata"] = metadata
    return "{" + ",".join(f'"{name}":{value}' for name, value in members.items()) + "}"
