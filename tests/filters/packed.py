"""Packed entries, made and read by what the pipeline does not use where that is possible."""

import msgpack
import msgspec

from bridge.events import EventTime

TIME = EventTime(1_700_000_000, 123_456_789)


def unpack(entries):
    unpacker = msgpack.Unpacker(
        strict_map_key=False, unicode_errors="surrogateescape", max_buffer_size=0
    )
    unpacker.feed(bytes(entries))
    return list(unpacker)


def entry(record, time=TIME):
    """Return an entry; a record of bytes is taken as it is."""
    packed = record if isinstance(record, bytes) else msgspec.msgpack.encode(record)
    stamp = b"\xd7\x00" + time.to_bytes() if isinstance(time, EventTime) else msgpack.packb(time)
    return b"\x92" + stamp + packed


def pack(records):
    return b"".join(map(entry, records))
