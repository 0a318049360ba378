"""Records as JSON has them, for people to read: bounded, and with words where JSON has no value."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import msgspec
from msgspec import Raw
from msgspec.msgpack import Ext

from bridge.decoding.records import Opaque, decode_odd, decode_plain
from bridge.decoding.values import Buffer, Kind, read_head
from bridge.events import EventTime

_DEEPEST = 32  # levels; nobody reads deeper, and a recursion must end
_decode_fields = msgspec.msgpack.Decoder(dict[Any, Raw]).decode


def shown(record: Buffer, most: int) -> tuple[dict[str, Any], bool]:
    """Return a record as JSON can hold it, and whether something of it was left out.

    What is left out is never decoded: a record of megabytes costs no more than its first bytes.

    Args:
        record: a well-formed map.
        most: bytes of it to show.
    """
    data = bytes(record)
    if len(data) <= most:
        return readable(decode_plain(data) or decode_odd(data)), False
    try:
        fields = _decode_fields(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {"…": f"a record of {len(data):,} bytes, too large to show"}, True
    some: dict[str, Any] = {}
    for key, raw in fields.items():
        if most <= 0:
            some["…"] = f"{len(fields) - len(some)} more fields"
            break
        name = _key(key)
        some[name] = _field(bytes(raw), most)
        most -= len(name) + len(raw)
    return some, True


def readable(value: Any, depth: int = 0) -> Any:
    """Return a decoded value as JSON can hold it.

    Bytes are shown as the text that they most likely are, with escapes where they are none.

    Args:
        value: what decoding gave.
        depth: how many levels stand above it.
    """
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, str):
        return text_of(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict | list | tuple):
        return _members(value, depth)
    return _odd(value)


def text_of(text: str) -> str:
    r"""Return a text that JSON can hold: what was no UTF-8 is shown as ``\xff``."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _key(key: Any) -> str:
    return text_of(key) if isinstance(key, str) else str(readable(key))


def _members(value: dict[Any, Any] | list[Any] | tuple[Any, ...], depth: int) -> Any:
    if depth >= _DEEPEST:
        return "… (nested deeper than is shown)"
    if isinstance(value, dict):
        return {_key(key): readable(member, depth + 1) for key, member in value.items()}
    return [readable(member, depth + 1) for member in value]


def _odd(value: Any) -> Any:
    match value:
        case bytes() | bytearray() | memoryview():
            return bytes(value).decode("utf-8", "backslashreplace")
        case Ext():
            data = bytes(value.data)
            if value.code == 0 and len(data) == 8:
                return EventTime.from_bytes(data).isoformat()
            return {"ext": value.code, "hex": data.hex()}
        case msgpack.Timestamp():
            return f"{value.seconds}.{value.nanoseconds:09}"
        case Opaque():
            return f"({len(value.data):,} bytes of msgpack that JSON has no form for)"
    return repr(value)


def _field(raw: bytes, most: int) -> Any:
    """Return a value, or the beginning of it, or how large it is."""
    if len(raw) <= most:
        # A map of one field is a record, and those can be decoded whatever they hold.
        one = b"\x81\xa0" + raw
        return readable((decode_plain(one) or decode_odd(one))[""])
    head = read_head(raw, 0, len(raw))
    if head is not None and head.kind in (Kind.STR, Kind.BIN):
        start = raw[head.size : head.size + most].decode("utf-8", "backslashreplace")
        return f"{start}… ({head.length:,} bytes)"
    return f"… ({len(raw):,} bytes)"
