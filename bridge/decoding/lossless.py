r"""Any msgpack value as one line of JSON that loses nothing.

What JSON has, stands there as JSON has it. The rest is a map of one key that begins with ``$``:

    {"$bin": "text"}            bytes
    {"$float": "NaN"}           NaN, Infinity, -Infinity
    {"$time": "2026-..."}       Fluentd's EventTime
    {"$ext": [type, "base64"]}  any other ext
    {"$map": [[key, value]]}    a map with a key that is no text, that came twice, or that alone
                                would be mistaken for one of these
    {"$msgpack": "base64"}      a value that nests too deeply to be decoded

Of a NaN's bits and of how wide a number was written nothing is said.

A byte that is not UTF-8 is ``\udcXX``, as :func:`os.fsdecode` has it, in text and ``$bin`` alike.
"""

from __future__ import annotations

import json
import math
import re
from base64 import b64encode
from collections.abc import Iterable
from typing import Any

import msgpack
from msgspec.msgpack import Ext

from bridge.decoding.values import Buffer
from bridge.events import EventTime

# What a terminal might obey or take for the end of a line; what is below 0x20 JSON escapes itself.
_CONTROL = re.compile("[\x7f-\x9f\u2028\u2029]")


def as_json(data: Buffer) -> str:
    """Return a value as a line of JSON that UTF-8 can hold.

    Args:
        data: a well-formed value in MessagePack.
    """
    try:
        value = msgpack.unpackb(
            data,
            strict_map_key=False,
            unicode_errors="surrogateescape",
            object_pairs_hook=_map,
            ext_hook=_ext,
            timestamp=0,
        )
        text = _dumps(value)
    except (ValueError, RecursionError, msgpack.UnpackException):
        text = _encode({"$msgpack": b64encode(data).decode()})
    # A lone surrogate stands in a string, where Python's escape is JSON's too.
    return _CONTROL.sub(_escape, text).encode("utf-8", "backslashreplace").decode()


def _dumps(value: Any) -> str:
    try:
        return _encode(value)
    except ValueError:
        return _encode(_finite(value))


def _finite(value: Any) -> Any:
    """Return a value with words for the numbers that JSON has not."""
    match value:
        case float() if not math.isfinite(value):
            return {"$float": json.dumps(value)}  # as JavaScript and Python call them
        case dict():
            return {key: _finite(member) for key, member in value.items()}
        case list() | tuple():
            return [_finite(member) for member in value]
    return value


def _map(pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    pairs = list(pairs)
    if all(type(key) is str for key, _ in pairs):
        fields = dict(pairs)
        if len(fields) == len(pairs) and not (len(pairs) == 1 and pairs[0][0].startswith("$")):
            return fields
    return {"$map": pairs}


def _ext(code: int, data: bytes) -> Any:
    if code == 0 and len(data) == 8:
        return {"$time": EventTime.from_bytes(data).isoformat()}
    return Ext(code, data)


def _odd(value: object) -> Any:
    match value:
        case bytes():
            return {"$bin": value.decode("utf-8", "surrogateescape")}
        case msgpack.Timestamp():
            return {"$ext": [-1, b64encode(value.to_bytes()).decode()]}
        case Ext():
            return {"$ext": [value.code, b64encode(value.data).decode()]}
    raise TypeError(f"msgpack has no {type(value).__qualname__}")


_encode = json.JSONEncoder(
    ensure_ascii=False,
    allow_nan=False,
    check_circular=False,
    separators=(",", ":"),
    default=_odd,
).encode


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
