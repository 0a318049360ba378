"""Where values begin and end, without decoding them.

Source: the MessagePack specification, "Formats".
"""

from __future__ import annotations

import struct

import msgpack
from msgspec import Raw

from bridge.errors import NotAnEvent

Buffer = bytes | bytearray | memoryview

_ARRAY_OF_2 = (b"\x92", b"\xdc\x00\x02", b"\xdd\x00\x00\x00\x02")
_ARRAY_32 = struct.Struct(">BI")

# How many bytes follow the first one, where that alone says it: a number, a fixed text, a fixed
# ext.
_FIXED = {
    **dict.fromkeys([0xC0, 0xC2, 0xC3], 0),
    0xCA: 4,
    0xCB: 8,
    0xCC: 1,
    0xCD: 2,
    0xCE: 4,
    0xCF: 8,
    0xD0: 1,
    0xD1: 2,
    0xD2: 4,
    0xD3: 8,
    0xD4: 2,
    0xD5: 3,
    0xD6: 5,
    0xD7: 9,
    0xD8: 17,
    **dict.fromkeys([*range(0x80), *range(0xE0, 0x100)], 0),
    **{0xA0 + length: length for length in range(32)},
}
# How long the length is that follows the first byte, and how many bytes come after it beside the
# body.
_MEASURED = {
    0xC4: (1, 0),
    0xC5: (2, 0),
    0xC6: (4, 0),
    0xC7: (1, 1),
    0xC8: (2, 1),
    0xC9: (4, 1),
    0xD9: (1, 0),
    0xDA: (2, 0),
    0xDB: (4, 0),
}
# How long the length of a container is, and how many values each of its members has.
_CONTAINERS = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


def skip(data: Buffer, offset: int = 0) -> int:
    """Return where the value that begins at an offset ends, however deeply it nests.

    Args:
        data: MessagePack.
        offset: the value's first byte.

    Raises:
        NotAnEvent: the data is malformed, or ends before the value does.
    """
    values = 1
    end = len(data)
    while values:
        values -= 1
        if offset >= end:
            raise NotAnEvent("it ends in the middle of a value")
        head = data[offset]
        offset += 1
        if (width := _FIXED.get(head)) is not None:
            offset += width
        elif head < 0x90:
            values += 2 * (head & 0x0F)
        elif head < 0xA0:
            values += head & 0x0F
        elif (measured := _MEASURED.get(head)) is not None:
            width, more = measured
            offset += width + more + int.from_bytes(data[offset : offset + width])
        elif (container := _CONTAINERS.get(head)) is not None:
            width, each = container
            values += each * int.from_bytes(data[offset : offset + width])
            offset += width
        else:
            raise NotAnEvent(f"byte 0x{head:02x} begins no MessagePack value")
    if offset > end:
        raise NotAnEvent("it ends in the middle of a value")
    return offset


def boundaries(entries: Buffer) -> list[int]:
    """Return where each entry begins, and the end of the last.

    Raises:
        NotAnEvent: an entry is malformed; the message names its index and its first byte.
    """
    offsets = [0]
    end = len(entries)
    unpacker = msgpack.Unpacker(max_buffer_size=0)
    unpacker.feed(entries)
    try:
        while offsets[-1] < end:
            unpacker.skip()
            offsets.append(unpacker.tell())
    except (ValueError, msgpack.UnpackException):
        pass  # malformed, or deeper than its stack of 1024: skip() tells which
    while offsets[-1] < end:
        try:
            offsets.append(skip(entries, offsets[-1]))
        except NotAnEvent as error:
            raise NotAnEvent(f"event {len(offsets) - 1} at byte {offsets[-1]}: {error}") from None
    return offsets


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
