"""Records that msgspec cannot decode or would not give back as they were."""

from __future__ import annotations

from typing import Any, cast

import msgpack
import msgspec
from msgspec import Raw
from msgspec.msgpack import Ext

from bridge.decoding.values import Buffer, read_head, skip
from bridge.errors import NotAnEvent

_MOST_RECURSION_ERRORS = 4096  # a record that holds itself would never end


class Opaque:
    """A field that no Python value stands for: nested too deeply, or with a map as a key.

    It can be moved or dropped, and is written as the bytes that it came as.

    Attributes:
        data: those bytes.
    """

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and other.data == self.data

    def __hash__(self) -> int:
        return hash(self.data)

    def __repr__(self) -> str:
        return f"Opaque({self.data[:32]!r}{'...' if len(self.data) > 32 else ''})"


def _enc_hook(value: object) -> object:
    if isinstance(value, msgpack.Timestamp):
        return Ext(-1, value.to_bytes())
    if isinstance(value, Opaque):
        return Raw(value.data)
    raise TypeError(
        f"a record cannot hold a {type(value).__qualname__}: convert it to text, a number, a list"
        " or a dict (of numpy: .item() or .tolist())"
    )


encode = msgspec.msgpack.Encoder(enc_hook=_enc_hook).encode
_decode_plain = msgspec.msgpack.Decoder(dict).decode


def may_hold_timestamp(data: bytes, most: int = 1 << 30) -> bool:
    """Return whether data may hold an ext of type -1, whose nanoseconds msgspec drops.

    Never false where it does; now and then true where other bytes look like one.

    Args:
        data: MessagePack.
        most: how many bytes 0xff to look at; with more of them the answer is yes.
    """
    find = data.find
    position = find(b"\xff", 1)
    while position > 0:
        # fixext 4 and 8, then ext 8, 16 and 32 with their length between (MessagePack, "ext
        # format").
        if data[position - 1] in {0xD6, 0xD7} or data[max(position - 2, 0)] == 0xC7:
            return True
        if data[max(position - 3, 0)] == 0xC8 or data[max(position - 5, 0)] == 0xC9:
            return True
        most -= 1
        if most <= 0:
            return True
        position = find(b"\xff", position + 1)
    return False


def decode_plain(data: bytes) -> dict[Any, Any] | None:
    """Return a record, None if it is one of the odd ones."""
    if may_hold_timestamp(data):
        return None
    try:
        return _decode_plain(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def decode_odd(data: Buffer) -> dict[Any, Any]:
    """Return a record of which nothing is lost, whatever it holds.

    Text that is not UTF-8 has surrogate escapes, as :func:`os.fsdecode` makes them; timestamps are
    :class:`msgpack.Timestamp`; what cannot be decoded is :class:`Opaque`.

    Args:
        data: a well-formed map.

    Raises:
        NotAnEvent: it is not well-formed.
    """
    data = bytes(data)
    try:
        return cast("dict[Any, Any]", _unpack(data))
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        return _decode_fields(data)


def _unpack(data: bytes) -> Any:
    return msgpack.unpackb(
        data,
        strict_map_key=False,
        unicode_errors="surrogateescape",
        timestamp=0,
        ext_hook=Ext,
    )


def _decode_fields(data: bytes) -> dict[Any, Any]:
    head = read_head(data, 0, len(data))
    if head is None:
        raise NotAnEvent("it ends in the middle of its head")
    offset = head.size
    record: dict[Any, Any] = {}
    for _ in range(head.length):
        middle = skip(data, offset)
        end = skip(data, middle)
        key = _field(data[offset:middle])
        try:
            hash(key)
        except TypeError:
            key = Opaque(data[offset:middle])
        record[key] = _field(data[middle:end])
        offset = end
    return record


def _field(data: bytes) -> Any:
    try:
        return _unpack(data)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        return Opaque(data)


def encode_odd(value: Any) -> bytes:
    """Return a value encoded whose text may have surrogate escapes, and that may nest deeply.

    Args:
        value: what :func:`decode_odd` returned, or a filter made of it.

    Raises:
        TypeError: it holds what MessagePack has no type for.
        OverflowError: it holds an integer of more than 64 bits.
        UnicodeEncodeError: it holds a surrogate that is no escape.
        RecursionError: it holds itself.
    """
    parts: list[bytes] = []
    values = [value]
    recursion_errors = 0
    while values:
        value = values.pop()
        try:
            parts.append(encode(value))
        except (UnicodeEncodeError, RecursionError) as error:
            recursion_errors += isinstance(error, RecursionError)
            if recursion_errors > _MOST_RECURSION_ERRORS:
                raise
            if isinstance(value, str):
                parts.append(_encode_text(value))
            elif isinstance(value, dict):
                parts.append(_header(len(value), 0x80, 0xDE))
                for key, member in reversed(value.items()):
                    values += (member, key)
            elif isinstance(value, list | tuple):
                parts.append(_header(len(value), 0x90, 0xDC))
                values += value[::-1]
            else:
                raise
    return b"".join(parts)


def _encode_text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    length = len(data)
    if length < 32:
        return bytes([0xA0 | length]) + data
    if length < 1 << 8:
        return b"\xd9" + length.to_bytes(1) + data
    if length < 1 << 16:
        return b"\xda" + length.to_bytes(2) + data
    return b"\xdb" + length.to_bytes(4) + data


def _header(length: int, fixed: int, measured: int) -> bytes:
    if length < 16:
        return bytes([fixed | length])
    if length < 1 << 16:
        return bytes([measured]) + length.to_bytes(2)
    return bytes([measured + 1]) + length.to_bytes(4)
