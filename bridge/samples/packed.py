"""Events in msgpack: Fluentd's buffer chunks, Forward messages, bare records."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgpack

from bridge.decoding import entry_of, is_map, raw_of_time, scan
from bridge.errors import NotAnEvent, ProtocolError, SampleError
from bridge.events import EventTime
from bridge.forward import Chunk, Receiver, codec
from bridge.samples.sample import Sample
from bridge.samples.source import Source

_BLOCK = 256 << 10
_LARGEST = (
    256 << 20
)  # bytes of a message or an event: Fluentd's chunks have 256 MB at most, unless told
_STR_OR_BIN = frozenset((*range(0xA0, 0xC0), 0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB))
_EVENT_TIME = b"\x92\xd7\x00"
_META_HEADER = b"\xc1\x00"  # plugin/buffer/file_chunk.rb, BUFFER_HEADER


def read_packed(source: Source, clock: Callable[[], EventTime]) -> Iterator[Sample]:
    """Return the events of a msgpack stream.

    What the stream holds is told by its first object: entries ``[time, record]`` and bare records,
    which may be mixed, or the messages of the Forward protocol in all of its modes.

    Args:
        source: the stream.
        clock: the time for events that have none.

    Raises:
        SampleError: it is cut off, or holds something else.
    """
    head = source.stream.peek(8)
    if head and (0x92 <= head[0] <= 0x94) and len(head) > 1 and head[1] in _STR_OR_BIN:
        yield from _read_messages(source, clock)
        return
    tag = _tag_of(source)
    for offset, data in objects(source):
        # Nearly all of them: told by three bytes and the one after the time.
        if data.startswith(_EVENT_TIME) and len(data) > 11 and _is_map_at(data, 11):
            yield Sample(tag, data, offset)
        elif is_map(data):
            yield Sample(tag, b"\x92" + bytes(raw_of_time(clock())) + data, offset)
        else:
            yield _entry(source, tag, data, offset)


def _entry(source: Source, tag: str | None, data: bytes, offset: int) -> Sample:
    sample = Sample(tag, data, offset)
    try:
        entry_of(data)
        sample.time  # noqa: B018 - raises if it is none
    except NotAnEvent as error:
        raise SampleError(
            f"neither an event [time, record] nor a record: {error}; the file is to hold events or"
            " Forward messages, one after the other",
            file=source.name,
            offset=offset,
        ) from None
    return sample


def _is_map_at(data: bytes, position: int) -> bool:
    byte = data[position]
    return 0x80 <= byte <= 0x8F or byte in {0xDE, 0xDF}


def objects(source: Source) -> Iterator[tuple[int, bytes]]:
    """Return the objects of a stream, whatever they are, each with its offset.

    Args:
        source: the stream.

    Raises:
        SampleError: it is cut off, or no msgpack.
    """
    base = 0
    data = b""
    block = _BLOCK
    while piece := source.stream.read1(block):
        data += piece
        start = 0
        try:
            for end in _ends(data):
                yield base + start, data[start:end]
                start = end
        except NotAnEvent as error:
            raise SampleError(
                f"{error}; is the file msgpack? Say what it is with --format",
                file=source.name,
                offset=base + start,
            ) from None
        data = data[start:]
        base += start
        # What goes over several blocks is not to be looked at again and again.
        block = _BLOCK if start else max(2 * block, _BLOCK)
        if len(data) > _LARGEST:
            raise SampleError(
                f"an object of more than {_LARGEST >> 20} MiB; is the file msgpack?",
                file=source.name,
                offset=base,
            )
    if data:
        raise SampleError(
            f"the file ends in the middle of an event: its last {len(data)} bytes are the beginning"
            " of one; it was cut off, or is still being written",
            file=source.name,
            offset=base,
        )


def _ends(data: bytes) -> Iterator[int]:
    """Return where each complete object ends."""
    unpacker = msgpack.Unpacker(max_buffer_size=0)
    unpacker.feed(data)
    skip_one, tell = unpacker.skip, unpacker.tell
    end = 0
    try:
        while True:
            skip_one()
            end = tell()
            yield end
    except msgpack.OutOfData:
        return
    except (ValueError, msgpack.UnpackException):
        pass  # malformed, or deeper than its stack of 1024: scan() tells which
    todo = 0
    while not todo and end < len(data):
        after, todo = scan(data, end, len(data), 1)
        if not todo:
            end = after
            yield end


def _read_messages(source: Source, clock: Callable[[], EventTime]) -> Iterator[Sample]:
    receiver = Receiver(max_message_bytes=_LARGEST, clock=clock)
    read = offset = 0
    try:
        while piece := source.stream.read1(_BLOCK):
            receiver.receive(piece)
            read += len(piece)
            while (event := receiver.next_event()) is not None:
                if isinstance(event, Chunk):
                    yield from _chunk(event, offset)
                    offset = read - receiver.pending_bytes
        left = receiver.pending_bytes
    except ProtocolError as error:
        raise SampleError(f"no Forward message: {error}", file=source.name, offset=offset) from None
    if left:
        raise SampleError(
            f"the file ends in the middle of a message: its last {left} bytes are the beginning of"
            " one; it was cut off, or is still being written",
            file=source.name,
            offset=offset,
        )


def _chunk(chunk: Chunk, offset: int) -> Iterator[Sample]:
    entries = bytes(chunk.entries)
    if chunk.compressed is not None:
        entries = bytes(codec.decompress(entries, chunk.compressed, _LARGEST))
    start = 0
    for end in _ends(entries):
        entry = entries[start:end]
        entry_of(entry)
        yield Sample(chunk.tag, entry, offset)
        start = end
    if start < len(entries):
        raise NotAnEvent(
            f"the entries under tag {chunk.tag!r} end in the middle of one, {start} bytes in"
        )


def _tag_of(source: Source) -> str | None:
    """Return the tag that Fluentd keeps beside a buffer's chunk, None where there is none."""
    if source.path is None:
        return None
    try:
        data = source.path.with_name(source.path.name + ".meta").read_bytes()
        if not data.startswith(_META_HEADER):
            return None
        size = int.from_bytes(data[2:6])
        meta = msgpack.unpackb(data[6 : 6 + size], strict_map_key=False)
    except (OSError, ValueError, msgpack.UnpackException):
        return None
    tag = meta.get("tag") if isinstance(meta, dict) else None
    return tag if isinstance(tag, str) else None
