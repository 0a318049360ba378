"""What filters made of events, as lines."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator

from bridge.decoding import as_json, boundaries, encode_odd, entry_of
from bridge.pipeline import Outcome, Stream
from bridge.pipeline.deadletters import time_text
from bridge.samples import Sample

_PLACE = re.compile(r'File "([^"]+)", line (\d+)')


class Results:
    """Prints the results of chunks on standard output.

    Args:
        as_json: a JSON object a line, dead letters as they would leave the sidecar; else the tag
            and the record, of dead letters the record as it came and why it failed.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._lines = _objects if as_json else _texts

    def show(self, outcome: Outcome) -> None:
        """Print the results of a chunk."""
        for stream in outcome.streams:
            for line in self._lines(stream):
                sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _objects(stream: Stream) -> Iterator[str]:
    for entry in _entries(stream):
        time, record = entry_of(entry)
        yield as_json(encode_odd({"time": time_text(time), "tag": stream.tag, "record": record}))


def _texts(stream: Stream) -> Iterator[str]:
    tag = as_json(encode_odd(stream.tag))[1:-1]
    for entry in _entries(stream):
        if not stream.error:
            yield f"{tag}: {as_json(entry_of(entry)[1])}"
            continue
        letter = Sample(None, entry, 0).record
        error = letter["error"]
        reason = f"{error['class']}: {error['message']}"
        if error["filter"] is not None:
            reason = f"{error['filter']}: {reason}"
        if places := _PLACE.findall(error["traceback"] or ""):
            file, line = places[-1]
            reason += f" ({file}:{line})"
        yield f"{tag}: {as_json(encode_odd(letter['record']))}"
        # A message of several lines is one: whoever counts lines counts events.
        yield f"  reason: {' '.join(reason.split())}"


def _entries(stream: Stream) -> Iterator[bytes]:
    data = bytes(stream.entries)
    for start, end in itertools.pairwise(boundaries(data)):
        yield data[start:end]
