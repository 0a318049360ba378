"""Events in text: JSON lines, a JSON document, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from bridge.decoding import raw_of_time
from bridge.errors import SampleError
from bridge.events import EventTime
from bridge.samples.sample import Sample
from bridge.samples.source import Source

_LONGEST_LINE = 64 << 20
_LARGEST_DOCUMENT = 256 << 20
_BOM = b"\xef\xbb\xbf"

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_decode_document = msgspec.json.Decoder(list[dict[str, Any]] | dict[str, Any]).decode
_encode = msgspec.msgpack.encode

Clock = Callable[[], EventTime]


def read_lines(source: Source, clock: Clock) -> Iterator[Sample]:
    """Return the events of a file with a JSON object, a record, a line; empty lines count for none.

    Args:
        source: the file.
        clock: the time for each event.

    Raises:
        SampleError: a line is something else.
    """
    number = 0
    readline = source.stream.readline
    while line := readline(_LONGEST_LINE):
        number += 1
        if number == 1:
            line = line.removeprefix(_BOM)
        if len(line) == _LONGEST_LINE:
            raise SampleError(
                f"longer than {_LONGEST_LINE >> 20} MiB; is it a record a line?",
                file=source.name,
                line=number,
            )
        if line.isspace():
            continue
        try:
            record = _decode(line)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise SampleError(
                f"not a JSON object: {error}; correct this line, or take it out",
                file=source.name,
                line=number,
            ) from None
        yield _sample(source, record, clock, number)


def read_document(source: Source, clock: Clock) -> Iterator[Sample]:
    """Return the events of one JSON document: an array of objects, or an object.

    It is held in memory, other than JSON lines.

    Args:
        source: the file.
        clock: the time for each event.

    Raises:
        SampleError: it is something else, or too large for that.
    """
    data = source.stream.read(_LARGEST_DOCUMENT + 1)
    if len(data) > _LARGEST_DOCUMENT:
        raise SampleError(
            f"one JSON document of more than {_LARGEST_DOCUMENT >> 20} MiB, which would have to be"
            " held in memory: make JSON lines of it, for instance by jq -c '.[]'",
            file=source.name,
        )
    try:
        document = _decode_document(data.removeprefix(_BOM))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise SampleError(
            f"neither a JSON object nor an array of objects: {error}; correct it, or make JSON"
            " lines of it, a record a line",
            file=source.name,
        ) from None
    for number, record in enumerate(document if isinstance(document, list) else [document], 1):
        yield _sample(source, record, clock, number)


def read_table(source: Source, clock: Clock) -> Iterator[Sample]:
    """Return the events of a CSV file: a row each, keys from the header row, every value a text.

    Args:
        source: the file.
        clock: the time for each event.

    Raises:
        SampleError: a row does not have as many fields as the header, or it is no CSV.
    """
    text = io.TextIOWrapper(source.stream, "utf-8-sig", newline="")
    rows = csv.reader(text, strict=True)
    try:
        header = next(rows, [])
        if len(set(header)) < len(header) or "" in header:
            raise SampleError(
                f"a header row with an empty or repeated name: {','.join(header)}; the first row"
                " names the fields",
                file=source.name,
                line=1,
            )
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise SampleError(
                    f"{len(row)} fields, the header has {len(header)}: a text with a comma or a"
                    ' newline stands in "quotes"',
                    file=source.name,
                    line=rows.line_num,
                )
            record = dict(zip(header, row, strict=True))
            yield _sample(source, record, clock, rows.line_num)
    except (csv.Error, UnicodeError) as error:
        raise SampleError(
            f"not CSV in UTF-8: {error}; save it as UTF-8, for instance by iconv",
            file=source.name,
            line=rows.line_num,
        ) from None
    finally:
        text.detach()


def _sample(source: Source, record: dict[str, Any], clock: Clock, number: int) -> Sample:
    try:
        entry = b"\x92" + bytes(raw_of_time(clock())) + _encode(record)
    except (OverflowError, ValueError, RecursionError) as error:
        raise SampleError(
            f"the record cannot be sent: {error}; msgpack's integers have 64 bits",
            file=source.name,
            line=number,
        ) from None
    return Sample(None, entry, number)
