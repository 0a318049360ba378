"""Packed entries: ``[time, record]`` in msgpack, one after the other, compressed or not.

Source: Forward protocol v1, "PackedForward Mode", "CompressedPackedForward Mode", "EventTime Ext
Format".
"""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Iterable
from typing import Any, Protocol

import msgpack

from bridge.decoding import Buffer, count_entries
from bridge.errors import MessageTooLarge, NotAnEvent, ProtocolError
from bridge.events import EventTime

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = [
    "METHODS",
    "Time",
    "compress",
    "count_entries",
    "decode_entries",
    "decompress",
    "pack_entries",
]

Time = int | float | EventTime

METHODS = frozenset({"gzip", "zstd"})
"""How entries may be compressed: Fluentd's names (plugin/compressable.rb), and fluent-bit's."""

_EVENT_TIME = 0  # type of the ext
_SLICE = 16 << 10  # what a decompressor did not use of its input is copied: the less the better
_PIECE = 1 << 20


def pack_entries(events: Iterable[tuple[Time, dict[Any, Any]]]) -> bytes:
    """Return events as packed entries.

    Args:
        events: times and records. An :class:`~bridge.events.EventTime` becomes the ext ``d7 00``, a
            number stays one; lone surrogates become the bytes that they stand for.

    Raises:
        TypeError, ValueError, OverflowError: a record holds what msgpack does not.
    """
    packer = msgpack.Packer(autoreset=False, unicode_errors="surrogateescape")
    for time, record in events:
        packer.pack_array_header(2)
        if isinstance(time, EventTime):
            packer.pack_ext_type(_EVENT_TIME, time.to_bytes())
        else:
            packer.pack(time)
        packer.pack(record)
    return packer.bytes()  # type: ignore[no-any-return]


def decode_entries(data: Buffer) -> list[tuple[Time, dict[Any, Any]]]:
    """Return the events in packed entries, for whoever has time to decode them all.

    Args:
        data: packed entries, not compressed.

    Returns:
        Times and records. Bytes in strings that are not UTF-8 become lone surrogates. Of a time
        with metadata, as fluent-bit sends it, the time is taken (in_forward.rb:391).

    Raises:
        NotAnEvent: an entry is not ``[time, record]``, or cannot be held by Python's types.
    """
    # First, as the decoder allocates what an array's head promises, and nested heads may promise
    # more than there is memory; after it, none promises more than the data holds.
    count_entries(data)
    unpacker = msgpack.Unpacker(
        max_buffer_size=max(len(data), 1),
        strict_map_key=False,
        unicode_errors="surrogateescape",
        ext_hook=_ext,
    )
    unpacker.feed(data)
    events: list[tuple[Time, dict[Any, Any]]] = []
    while unpacker.tell() < len(data):
        where = f"event {len(events)} at byte {unpacker.tell()}"
        try:
            entry = unpacker.unpack()
        except (msgpack.UnpackException, ValueError, TypeError, OverflowError) as error:
            reason = str(error) or type(error).__name__
            raise NotAnEvent(f"{where} cannot be decoded: {reason}") from error
        if not isinstance(entry, list) or len(entry) != 2:
            raise NotAnEvent(f"{where} is not [time, record]")
        time, record = entry
        if isinstance(time, list) and time:
            time = time[0]
        if not isinstance(time, int | float | EventTime) or isinstance(time, bool):
            raise NotAnEvent(f"{where} has no time but {type(time).__name__}")
        if not isinstance(record, dict):
            raise NotAnEvent(f"{where} has no record but {type(record).__name__}")
        events.append((time, record))
    return events


def compress(data: Buffer, method: str) -> bytes:
    """Return data compressed.

    Args:
        data: packed entries.
        method: one of :data:`METHODS`.

    Raises:
        ValueError: the method is unknown.
    """
    if method == "gzip":
        return gzip.compress(data, compresslevel=6, mtime=0)
    if method == "zstd":
        return zstd.compress(data)
    raise ValueError(_unknown(method))


def decompress(data: Buffer, method: str, limit: int) -> bytearray:
    """Return data decompressed: all members or frames, as Fluentd makes one an append to a buffer.

    Args:
        data: compressed entries.
        method: one of :data:`METHODS`.
        limit: the most bytes to return.

    Raises:
        MessageTooLarge: the result would be over the limit; no more than that has been made of it.
        ProtocolError: the data is cut off or broken, or the method is unknown.
    """
    if method not in METHODS:
        raise ProtocolError(_unknown(method))
    new: type[_Decompressor] = _Gunzip if method == "gzip" else zstd.ZstdDecompressor
    result = bytearray()
    view = memoryview(data)
    pos = 0
    try:
        while pos < len(view):  # a member or frame
            one = new()
            while not one.eof:
                piece: Buffer = b""
                if one.needs_input:
                    if pos == len(view):
                        raise ProtocolError(f"the {method} data is cut off after {pos} bytes")
                    piece = view[pos : pos + _SLICE]
                    pos += len(piece)
                result += one.decompress(piece, min(_PIECE, limit - len(result) + 1))
                if len(result) > limit:
                    raise MessageTooLarge(
                        f"the {method} data ({len(view)} bytes) decompresses to more than the limit"
                        f" of {limit} bytes: raise the limit, or send smaller chunks"
                    )
            pos -= len(one.unused_data)
    except (zlib.error, zstd.ZstdError) as error:
        raise ProtocolError(f"the {method} data is broken near byte {pos}: {error}") from None
    return result


class _Decompressor(Protocol):
    """What ``zstd.ZstdDecompressor`` has."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: Buffer, max_length: int) -> bytes: ...


class _Gunzip:
    """zlib's decompressor of one gzip member, as zstd's are."""

    def __init__(self) -> None:
        self._one = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._one.eof

    @property
    def unused_data(self) -> bytes:
        return self._one.unused_data

    def decompress(self, data: Buffer, max_length: int) -> bytes:
        result = self._one.decompress(data or self._one.unconsumed_tail, max_length)
        # Output that it still holds comes with the next input: at least the trailer is to come.
        self.needs_input = not self._one.unconsumed_tail
        return result


def _ext(code: int, data: bytes) -> Any:
    if code == _EVENT_TIME and len(data) == 8:
        return EventTime.from_bytes(data)
    return msgpack.ExtType(code, data)


def _unknown(method: str) -> str:
    return f"unknown compression {method!r}: known are {', '.join(sorted(METHODS))}"
