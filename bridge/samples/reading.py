"""Reading a file of events, whatever its format."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from bridge.errors import SampleError
from bridge.events import EventTime
from bridge.samples import packed
from bridge.samples.sample import Sample
from bridge.samples.source import BROKEN, Format, Source
from bridge.samples.text import read_document, read_lines, read_table

_READERS = {
    "msgpack": packed.read_packed,
    "jsonl": read_lines,
    "json": read_document,
    "csv": read_table,
}


def read(
    source: str | Path | Source,
    format: Format | None = None,  # noqa: A002
    *,
    clock: Callable[[], EventTime] = EventTime.now,
) -> Iterator[Sample]:
    """Return the events of a file as they stream by.

    Args:
        source: the file, ``-`` for standard input; or an open one, which stays open.
        format: what it is; by default told by its name, else by its first bytes: ``msgpack`` (a
            buffer chunk of Fluentd's or any entries ``[time, record]``, messages of the Forward
            protocol, or bare records), ``jsonl`` (a record a line), ``json`` (one document, an
            array of records or a record) or ``csv`` (a header row; every value is a text). gzip
            and zstd are taken off.
        clock: the time for events that have none.

    Raises:
        SampleError: the file cannot be read, or holds something else; names file, and line or
            byte. Events that stand before the mistake have been returned by then.
    """
    if not isinstance(source, Source):
        with Source(source, format) as opened:
            yield from read(opened, clock=clock)
        return
    if source.format is None:
        return
    with _to_its_end(source):
        yield from _READERS[source.format](source, clock)


def objects(source: Source) -> Iterator[tuple[int, bytes]]:
    """Return the objects of a msgpack stream, whatever they are, each with its offset.

    Args:
        source: the stream.

    Raises:
        SampleError: it is cut off, or no msgpack.
    """
    with _to_its_end(source):
        yield from packed.objects(source)


@contextlib.contextmanager
def _to_its_end(source: Source) -> Iterator[None]:
    try:
        yield
    except BROKEN as error:
        raise SampleError(
            f"cannot be read to its end: {error}; it is cut off or broken: copy it anew",
            file=source.name,
            offset=source.position,
        ) from error
