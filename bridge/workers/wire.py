"""What the transport process and a worker say to each other over their socket pair.

A frame is the lengths of its head and of its body, the head (msgpack) and the body (packed entries,
as they are). Entries are never decoded for this: the transport hands on the bytes that it received
and gets bytes that it can send.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

PREFIX = struct.Struct("!IQ")  # length of the head, length of the body


class Start(msgspec.Struct, array_like=True, frozen=True):
    """The first frame to a worker: what to load.

    Attributes:
        filters: the folder of filter files.
        parameters: parameters of filter classes, by filter name.
        payload: ``raw`` or ``json``.
        payload_key: the field that holds the document if the payload is JSON.
        max_decompressed_bytes: the most that compressed entries may become.
        log_level: the level for what the filters log.
        log_format: how to write it.
        sources: the text of each Python file in the folder, by its path in the file system's
            encoding; None for one that cannot be read.
    """

    filters: str
    parameters: dict[str, dict[str, Any]]
    payload: str
    payload_key: str
    max_decompressed_bytes: int
    log_level: str
    log_format: str
    sources: dict[bytes, bytes | None] = {}


class Job(msgspec.Struct, array_like=True, frozen=True):
    """Entries to run through the filters; the body is the entries.

    Attributes:
        tag: their tag, which need not be UTF-8.
        count: how many they are said to be; a hint.
        compressed: how they are compressed, if they are.
        start: the first event to run, counted from 0.
        stop: the event to stop before; None is the end.
        attempts: how many times these events have been run, this time included.
        careful: tell before each event which one comes, because one of them kills workers.
        verdict: error class and message: do not run the event, send it to the error stream.
        taps: who wants to see some of the events, how many at most, and whether only errors.
    """

    tag: bytes
    count: int | None
    compressed: str | None
    start: int = 0
    stop: int | None = None
    attempts: int = 1
    careful: bool = False
    verdict: tuple[str, str] | None = None
    taps: tuple[tuple[int, int, bool], ...] = ()


class Filter(msgspec.Struct, array_like=True, frozen=True):
    """A filter that is loaded.

    Attributes:
        name: its name.
        pattern: its tag pattern.
        batch: whether it takes all events of a chunk, which must then not be cut.
    """

    name: str
    pattern: str
    batch: bool


class Ready(msgspec.Struct, array_like=True, tag=True, frozen=True):
    """The worker has loaded the filters.

    Attributes:
        filters: the filters, in order.
    """

    filters: list[Filter]


class Unloadable(msgspec.Struct, array_like=True, tag=True, frozen=True):
    """The worker cannot load the filters and ends.

    Attributes:
        mistakes: what is wrong and what to do, one text a mistake.
    """

    mistakes: list[str]


class Progress(msgspec.Struct, array_like=True, tag=True, frozen=True):
    """A careful job comes to an event.

    Attributes:
        index: the event; -1 before the first.
        total: how many events the entries hold.
    """

    index: int
    total: int


class Done(msgspec.Struct, array_like=True, tag=True, frozen=True):
    """A job's results; the body is the entries of all streams, one after the other.

    Attributes:
        streams: tag, count, length in bytes, and whether it is the error stream.
        received: events that were run.
        dropped: events that a filter dropped.
        errors: events that went to the error stream.
        seconds: how long it took.
        filters: name, seconds, events in, dropped, failed: one a filter that ran.
        instruments: what the user's own counters and histograms have gained.
        cpu_seconds: the worker's CPU time since its start.
        resident_bytes: the worker's memory.
        tapped: the events for whom wanted to see some, each a JSON object.
    """

    streams: list[tuple[bytes, int, int, bool]]
    received: int
    dropped: int
    errors: int
    seconds: float
    filters: list[tuple[str, float, int, int, int]]
    instruments: list[Any]
    cpu_seconds: float
    resident_bytes: int
    tapped: list[tuple[int, bytes]] = []


class Again(msgspec.Struct, array_like=True, tag=True, frozen=True):
    """A filter raised Retry.

    Attributes:
        delay: seconds until the job is to come again.
        reason: who asked for it.
    """

    delay: float
    reason: str


class Refused(msgspec.Struct, array_like=True, tag=True, frozen=True):
    """The entries are no events, or too many bytes.

    Attributes:
        reason: what is wrong with them.
    """

    reason: str


class Broken(msgspec.Struct, array_like=True, tag=True, frozen=True):
    """The worker itself failed on the job, by its own fault or for want of memory, and ends.

    Attributes:
        reason: the exception.
        traceback: where.
    """

    reason: str
    traceback: str


Reply = Ready | Unloadable | Progress | Done | Again | Refused | Broken

_encoder = msgspec.msgpack.Encoder()
decode_start = msgspec.msgpack.Decoder(Start).decode
decode_job = msgspec.msgpack.Decoder(Job).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode


def frame(head: Start | Job | Reply, body_length: int = 0) -> bytes:
    """Return all of a frame but its body."""
    encoded = _encoder.encode(head)
    return PREFIX.pack(len(encoded), body_length) + encoded
