"""Lines of nginx become fields, and the time in the line becomes the event's."""

import datetime as dt
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from _formats import FORMATS, misfit, unescaped

import bridge

TIMES = {"access": "%d/%b/%Y:%H:%M:%S %z", "error": "%Y/%m/%d %H:%M:%S"}
NUMBERS = {"status": int, "bytes": int, "seconds": float}

lines = bridge.counter("log_lines_total", "Lines that were understood.", labels=("format",))


@bridge.filter("nginx.**")
def parse(event: bridge.Event) -> bridge.Event:
    """Replace ``message`` by the fields that it holds; what else the record has stays."""
    # A Reject below loses nothing: the dead letter holds the record as it came.
    line = event.record.pop("message").rstrip()
    name, fields = fields_of(line)
    event.time = time_of(fields.pop("time"), TIMES[name])
    for field in NUMBERS.keys() & fields.keys():
        fields[field] = NUMBERS[field](fields[field])
    if "request" in fields:
        fields |= parts_of(fields.pop("request"))
    event.record |= fields
    lines.inc(format=name)
    return event


def fields_of(line: str) -> tuple[str, dict[str, Any]]:
    """Return the name of the format that a line fits, and what stands in it.

    Raises:
        bridge.Reject: it fits none.
    """
    for name, pattern in FORMATS.items():
        if found := pattern.match(line):
            # nginx writes - for what is not there.
            texts = found.groupdict("-").items()
            return name, {field: unescaped(text) for field, text in texts if text != "-"}
    raise bridge.Reject(f"the line has no known format: {misfit(line)}")


@lru_cache(4096)  # a busy server writes many lines a second; strptime takes longer than the rest
def time_of(text: str, shape: str) -> bridge.EventTime:
    """Return the time that a text says.

    Raises:
        bridge.Reject: there is no such time.
    """
    try:
        time = dt.datetime.strptime(text, shape)  # noqa: DTZ007 - see below
    except ValueError:
        raise bridge.Reject(f"the line's time is {text!r}, which is not like {shape}") from None
    if time.tzinfo is None:
        time = time.replace(tzinfo=dt.UTC)  # an error log has no zone: run nginx with TZ=UTC
    return bridge.EventTime(int(time.timestamp()))


def parts_of(request: str) -> dict[str, Any]:
    """Return method, path and query of a request; of what scanners send, the text as it is."""
    words = request.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/"):
        return {"request": request}
    path, _, query = words[1].partition("?")
    parts: dict[str, Any] = {"method": words[0], "path": path}
    if query:
        # Of a name that comes twice the last value: always a text, never now and then a list.
        parts["query"] = dict(parse_qsl(query, keep_blank_values=True))
    return parts
