"""Where MessagePack values begin and end, without decoding them.

Source: the MessagePack specification, "Formats".
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from bridge.errors import NotAnEvent

Buffer = bytes | bytearray | memoryview


class Kind(IntEnum):
    """What the first byte of a value says that it is."""

    SCALAR = 0
    STR = 1
    BIN = 2
    EXT = 3
    ARRAY = 4
    MAP = 5
    INVALID = 6


class Head(NamedTuple):
    """The start of a value.

    Attributes:
        kind: what the value is.
        size: bytes of the head: the first byte and the length that follows it.
        length: bytes after the head, or items, or pairs. An ext's type byte is not counted.
    """

    kind: Kind
    size: int
    length: int


def _head_of(byte: int) -> tuple[Kind, int, int]:
    """Return the kind, the bytes of the length that follows, and the length where none follows."""
    if byte <= 0x7F or byte >= 0xE0:
        return Kind.SCALAR, 0, 0
    if byte <= 0x8F:
        return Kind.MAP, 0, byte & 0x0F
    if byte <= 0x9F:
        return Kind.ARRAY, 0, byte & 0x0F
    if byte <= 0xBF:
        return Kind.STR, 0, byte & 0x1F
    return {
        0xC0: (Kind.SCALAR, 0, 0),
        0xC1: (Kind.INVALID, 0, 0),  # never used, says the specification
        0xC2: (Kind.SCALAR, 0, 0),
        0xC3: (Kind.SCALAR, 0, 0),
        0xC4: (Kind.BIN, 1, 0),
        0xC5: (Kind.BIN, 2, 0),
        0xC6: (Kind.BIN, 4, 0),
        0xC7: (Kind.EXT, 1, 0),
        0xC8: (Kind.EXT, 2, 0),
        0xC9: (Kind.EXT, 4, 0),
        0xCA: (Kind.SCALAR, 0, 4),
        0xCB: (Kind.SCALAR, 0, 8),
        0xCC: (Kind.SCALAR, 0, 1),
        0xCD: (Kind.SCALAR, 0, 2),
        0xCE: (Kind.SCALAR, 0, 4),
        0xCF: (Kind.SCALAR, 0, 8),
        0xD0: (Kind.SCALAR, 0, 1),
        0xD1: (Kind.SCALAR, 0, 2),
        0xD2: (Kind.SCALAR, 0, 4),
        0xD3: (Kind.SCALAR, 0, 8),
        0xD4: (Kind.EXT, 0, 1),
        0xD5: (Kind.EXT, 0, 2),
        0xD6: (Kind.EXT, 0, 4),
        0xD7: (Kind.EXT, 0, 8),
        0xD8: (Kind.EXT, 0, 16),
        0xD9: (Kind.STR, 1, 0),
        0xDA: (Kind.STR, 2, 0),
        0xDB: (Kind.STR, 4, 0),
        0xDC: (Kind.ARRAY, 2, 0),
        0xDD: (Kind.ARRAY, 4, 0),
        0xDE: (Kind.MAP, 2, 0),
        0xDF: (Kind.MAP, 4, 0),
    }[byte]


_HEADS = tuple(map(_head_of, range(256)))


def _plain_size(kind: Kind, width: int, length: int) -> int:
    if width or kind is Kind.INVALID:
        return 0
    if kind in (Kind.ARRAY, Kind.MAP):
        return 1
    return 1 + length + (kind is Kind.EXT)


# For values whose first byte says it all, which is most of them: their size without their members,
# and the number of their members. The others have size 0.
_PLAIN = tuple(_plain_size(*head) for head in _HEADS)
_MEMBERS = tuple(
    {Kind.ARRAY: length, Kind.MAP: 2 * length}.get(kind, 0) for kind, _, length in _HEADS
)
# For those whose length follows: its bytes, how many members each of it stands for, and the bytes
# that come with those that it counts.
_MEASURED = {
    byte: (width, {Kind.ARRAY: 1, Kind.MAP: 2}.get(kind, 0), int(kind is Kind.EXT))
    for byte, (kind, width, _) in enumerate(_HEADS)
    if width
}


def read_head(data: Buffer, pos: int, end: int) -> Head | None:
    """Return the head of the value at a position, None if it is not all there.

    Args:
        data: MessagePack.
        pos: where the value begins.
        end: where the data ends.
    """
    if pos >= end:
        return None
    kind, width, length = _HEADS[data[pos]]
    size = 1 + width
    if pos + size > end:
        return None
    if width:
        length = int.from_bytes(data[pos + 1 : pos + size])
    return Head(kind, size, length)


def scan(data: Buffer, pos: int, end: int, todo: int) -> tuple[int, int]:
    """Go over values, and stop where the data does.

    A count of the values still to come is all that nesting needs, so depth costs nothing.

    Args:
        data: MessagePack.
        pos: where the first value begins.
        end: where the data ends.
        todo: how many values to go over.

    Returns:
        Where the next value begins, and how many are still to come.

    Raises:
        NotAnEvent: the data is not msgpack.
    """
    while todo and pos < end:
        first = data[pos]
        if plain := _PLAIN[first]:
            after = pos + plain
            members = _MEMBERS[first]
        elif measured := _MEASURED.get(first):
            width, each, more = measured
            after = pos + 1 + width
            if after > end:
                break
            length = int.from_bytes(data[pos + 1 : after])
            members = each * length
            if not each:
                after += length + more
        else:
            raise NotAnEvent(f"not msgpack: it holds the byte 0x{first:02x}")
        if after > end:
            break
        pos = after
        todo += members - 1
    return pos, todo


def skip(data: Buffer, pos: int = 0) -> int:
    """Return where the value that begins at a position ends, however deeply it nests.

    For single values, and for what the much faster :meth:`msgpack.Unpacker.skip` refuses, which is
    nesting over 1024.

    Args:
        data: MessagePack.
        pos: where the value begins.

    Raises:
        NotAnEvent: the data is not msgpack, or ends before the value does.
    """
    end, todo = scan(data, pos, len(data), 1)
    if todo:
        raise NotAnEvent("it ends in the middle of a value")
    return end
