"""Where msgpack objects end, without decoding them.

Source: the msgpack specification, "Formats"; ``msgpack.Unpacker.skip`` does nearly all of the work.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import msgpack

from bridge.errors import ProtocolError

Buffer = bytes | bytearray | memoryview


class Kind(IntEnum):
    """What the first byte of an object says that it is."""

    SCALAR = 0
    STR = 1
    BIN = 2
    EXT = 3
    ARRAY = 4
    MAP = 5
    INVALID = 6


class Head(NamedTuple):
    """The start of an object.

    Attributes:
        kind: what the object is.
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


# For objects whose first byte says it all, which is most of them: their size without their items,
# and the number of their items. The others have size 0.
_PLAIN = tuple(_plain_size(*head) for head in _HEADS)
_ITEMS = tuple(
    {Kind.ARRAY: length, Kind.MAP: 2 * length}.get(kind, 0) for kind, _, length in _HEADS
)


def read_head(data: Buffer, pos: int, end: int) -> Head | None:
    """Return the head of the object at a position, None if it is not all there.

    Args:
        data: msgpack.
        pos: where the object begins.
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
    """Go over objects in Python, and stop where the data does.

    A count of the objects still to come is all that nesting needs, so depth costs nothing.

    Args:
        data: msgpack.
        pos: where the first object begins.
        end: where the data ends.
        todo: how many objects to go over.

    Returns:
        Where the next object begins, and how many are still to come.

    Raises:
        ProtocolError: the data is not msgpack.
    """
    while todo:
        plain = _PLAIN[data[pos]] if pos < end else 0
        if plain:
            if pos + plain > end:
                break
            todo += _ITEMS[data[pos]] - 1
            pos += plain
            continue
        head = read_head(data, pos, end)
        if head is None:
            break
        kind, size, length = head
        after = pos + size
        todo -= 1
        if kind is Kind.ARRAY:
            todo += length
        elif kind is Kind.MAP:
            todo += 2 * length
        elif kind is Kind.INVALID:
            raise ProtocolError(f"not msgpack: byte 0xc1 at offset {pos}")
        else:
            after += length + (kind is Kind.EXT)
            if after > end:
                return pos, todo + 1
        pos = after
    return pos, todo


def skip(data: Buffer, pos: int) -> int:
    """Return where the object at a position ends, however deeply it is nested.

    For what the much faster :meth:`msgpack.Unpacker.skip` refuses, which is nesting over 1024.

    Args:
        data: msgpack.
        pos: where the object begins.

    Raises:
        ProtocolError: the data ends within the object, or is not msgpack.
    """
    end, todo = scan(data, pos, len(data), 1)
    if todo:
        raise ProtocolError(f"the data ends within the msgpack object at offset {pos}")
    return end


class Scanner:
    """Finds the end of an object that is still arriving, and looks at each byte once.

    Args:
        pos: where the object begins. Positions are relative to a start that the caller chooses, and
            may move in its buffer.

    Attributes:
        pos: where the object ends, once :meth:`scan` has found it.
    """

    # Bytes of the next message are fed in vain: so little at first, more for longer objects.
    _FIRST_FEED = 512
    _FULL_FEED = 64 << 10

    __slots__ = ("_fed", "_feed", "_todo", "_unpacker", "pos")

    def __init__(self, pos: int) -> None:
        self.pos = pos
        self._fed = pos
        self._feed = self._FIRST_FEED
        self._todo = 1
        # No bound but the caller's on what arrives.
        self._unpacker: msgpack.Unpacker | None = msgpack.Unpacker(
            max_buffer_size=0, read_size=8 * self._FIRST_FEED
        )

    def scan(self, data: bytearray, start: int, end: int) -> bool:
        """Go on with data that begins with what it had before.

        Args:
            data: a buffer.
            start: where position 0 is in it now.
            end: where in it the data ends.

        Returns:
            Whether the object is complete.

        Raises:
            ProtocolError: the data is not msgpack.
        """
        while self._unpacker is not None and start + self._fed < end:
            fed = min(start + self._fed + self._feed, end)
            self._unpacker.feed(memoryview(data)[start + self._fed : fed])
            self._fed = fed - start
            self._feed = min(self._feed * 2, self._FULL_FEED)
            try:
                self._unpacker.skip()
            except msgpack.OutOfData:
                continue
            except msgpack.StackError:  # nested too deeply for it
                self._unpacker = None
            except msgpack.FormatError:
                raise ProtocolError("not msgpack: it holds the byte 0xc1") from None
            else:
                self.pos += self._unpacker.tell()
                return True
        if self._unpacker is not None:
            return False
        at, self._todo = scan(data, start + self.pos, end, self._todo)
        self.pos = at - start
        return not self._todo
