"""Events as JSON for people to look at: bounded, and with the document that the filters see."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
from msgspec import Raw

from bridge.decoding import Kind, encode, encode_odd, read_head
from bridge.decoding.lossless import as_json
from bridge.pipeline.deadletters import time_text

_decode_fields = msgspec.msgpack.Decoder(dict[Any, Raw]).decode
_decode_text = msgspec.msgpack.Decoder().decode


class Shown(msgspec.Struct, frozen=True):
    """An event as JSON.

    Attributes:
        tag: its tag.
        time: its time as people read it.
        record: its record, as :mod:`bridge.decoding.lossless` writes it.
    """

    tag: Raw
    time: str
    record: Raw


def shown(
    tag: str, time: Raw, record: Raw, *, most: int, document: str | None
) -> tuple[Shown, bool]:
    """Return an event as JSON, and whether something of it was left out.

    What is left out is never decoded: a record of megabytes costs no more than its first bytes.

    Args:
        tag: its tag.
        time: its time.
        record: its record, not decoded.
        most: bytes of the record to show.
        document: a field whose text is shown as the JSON document that it holds.
    """
    data = bytes(record)
    cut = len(data) > most
    if cut or document is not None:
        data = _opened(data, most, document)
    name = as_json(encode_odd(tag))
    return Shown(Raw(name.encode()), time_text(time), Raw(as_json(data).encode())), cut


def _opened(data: bytes, most: int, document: str | None) -> bytes:
    """Return a record with long fields cut, and the document in the place of its text."""
    try:
        fields = _decode_fields(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return data if len(data) <= most else encode({"…": f"{len(data):,} bytes"})
    some: dict[Any, Any] = {}
    for key, raw in fields.items():
        if most <= 0:
            some["…"] = f"{len(fields) - len(some)} more fields"
            break
        value = bytes(raw)
        some[key] = raw if len(value) <= most else _beginning(value, most)
        most -= len(value) + 2
    if isinstance(some.get(document), Raw):
        with contextlib.suppress(msgspec.MsgspecError, ValueError, RecursionError):
            some[document] = msgspec.json.decode(_decode_text(some[document]))
    with contextlib.suppress(TypeError, ValueError, OverflowError, RecursionError):
        return encode(some)
    return encode({"…": f"{len(data):,} bytes"})


def _beginning(value: bytes, most: int) -> str:
    head = read_head(value, 0, len(value))
    if head is None or head.kind not in (Kind.STR, Kind.BIN):
        return f"… ({len(value):,} bytes)"
    start = value[head.size : head.size + most].decode("utf-8", "ignore")
    return f"{start}… ({head.length:,} bytes)"
