"""Where packed entries begin and end, and what their parts are, without decoding them."""

from __future__ import annotations

import struct

import msgpack
from msgspec import Raw

from bridge.decoding.values import Buffer, skip
from bridge.errors import NotAnEvent

_ARRAY_OF_2 = (b"\x92", b"\xdc\x00\x02", b"\xdd\x00\x00\x00\x02")
_ARRAY_32 = struct.Struct(">BI")


def boundaries(entries: Buffer) -> list[int]:
    """Return where each entry begins, and the end of the last.

    Raises:
        NotAnEvent: an entry is malformed; the message names its index and its first byte.
    """
    offsets = [0]
    end = len(entries)
    unpacker = msgpack.Unpacker(max_buffer_size=max(end, 1))
    unpacker.feed(entries)
    skip_one, tell, note = unpacker.skip, unpacker.tell, offsets.append
    try:
        while True:
            skip_one()
            note(tell())
    except (ValueError, msgpack.UnpackException):
        pass  # the end, or malformed, or deeper than its stack of 1024: skip() tells which
    while offsets[-1] < end:
        try:
            note(skip(entries, offsets[-1]))
        except NotAnEvent as error:
            raise NotAnEvent(f"event {len(offsets) - 1} at byte {offsets[-1]}: {error}") from None
    return offsets


def count_entries(entries: Buffer) -> int:
    """Return how many entries there are.

    Raises:
        NotAnEvent: an entry is malformed; the message names its index and its first byte.
    """
    return len(boundaries(entries)) - 1


def entry_of(data: Buffer) -> tuple[Raw, Raw]:
    """Return the time and the record of one entry, neither of them decoded.

    Raises:
        NotAnEvent: it is not an array of two whose second is a map.
    """
    data = bytes(data)
    for header in _ARRAY_OF_2:
        if data.startswith(header):
            break
    else:
        raise NotAnEvent("it is not an array of a time and a record")
    middle = skip(data, len(header))
    record = data[middle:]
    if not is_map(record):
        raise NotAnEvent("its record is not a map")
    return Raw(data[len(header) : middle]), Raw(record)


def is_map(data: Buffer | Raw) -> bool:
    """Return whether a value is a map."""
    view = memoryview(data)
    return bool(view) and (0x80 <= view[0] <= 0x8F or view[0] in {0xDE, 0xDF})


def array_header(length: int) -> bytes:
    """Return the header of an array, as msgspec writes it: the shortest."""
    if length < 16:
        return bytes([0x90 | length])
    if length < 1 << 16:
        return b"\xdc" + length.to_bytes(2)
    return _ARRAY_32.pack(0xDD, length)


def text_header(length: int) -> bytes:
    """Return the header of a text, the shortest."""
    if length < 32:
        return bytes([0xA0 | length])
    if length < 1 << 8:
        return bytes([0xD9, length])
    if length < 1 << 16:
        return b"\xda" + length.to_bytes(2)
    return b"\xdb" + length.to_bytes(4)
