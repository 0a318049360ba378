"""Writes a ``ProcessResponse`` around the results, which are copied only into it."""

from __future__ import annotations

from collections.abc import Iterable

from bridge.rpc.v1 import sidecar_pb2 as pb
from bridge.workers import wire

_LENGTH_DELIMITED = 2  # wire type of bytes and messages


def _key(number: int) -> bytes:
    return bytes([number << 3 | _LENGTH_DELIMITED])


_STREAMS = _key(pb.ProcessResponse.STREAMS_FIELD_NUMBER)
_ENTRIES = _key(pb.Stream.ENTRIES_FIELD_NUMBER)


def process_response(answers: Iterable[tuple[wire.Done, memoryview]]) -> bytes:
    """Return the encoded reply, with the streams of the answers one after the other.

    The generated classes encode all but the entries: they take none but ``bytes``, and copy them
    twice. That the fields of one message may stand in any order and in several pieces makes it one
    message. Source: protobuf's "Encoding", "Message Structure" and "Last One Wins".

    Args:
        answers: what the workers answered, in the batch's order.
    """
    totals = pb.ProcessResponse()
    parts: list[bytes | memoryview] = []
    for reply, body in answers:
        totals.received += reply.received
        totals.dropped += reply.dropped
        totals.errors += reply.errors
        position = 0
        for tag, count, length, error in reply.streams:
            head = pb.Stream(tag=tag, count=count, error=error).SerializeToString()
            size = _varint(length)
            whole = len(head) + len(_ENTRIES) + len(size) + length
            entries = body[position : position + length]
            parts += (_STREAMS, _varint(whole), head, _ENTRIES, size, entries)
            position += length
    return b"".join((totals.SerializeToString(), *parts))


def _varint(number: int) -> bytes:
    """Return a number in base 128, the least significant group first."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)
