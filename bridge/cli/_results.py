"""What filters made of events, as lines."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from bridge.decoding import as_json, encode_odd, entry_of
from bridge.pipeline import Outcome, Stream
from bridge.pipeline.deadletters import reason_of, time_text
from bridge.samples import unpacked

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
    for sample in unpacked(stream.entries):
        time, record = entry_of(sample.entry)
        yield as_json(encode_odd({"time": time_text(time), "tag": stream.tag, "record": record}))


def _texts(stream: Stream) -> Iterator[str]:
    tag = as_json(encode_odd(stream.tag))[1:-1]
    for sample in unpacked(stream.entries):
        if not stream.error:
            yield f"{tag}: {as_json(entry_of(sample.entry)[1])}"
            continue
        letter = sample.record
        reason = reason_of(letter)
        if places := _PLACE.findall(letter["error"]["traceback"] or ""):
            file, line = places[-1]
            reason += f" ({file}:{line})"
        yield f"{tag}: {as_json(encode_odd(letter['record']))}"
        # A message of several lines is one: whoever counts lines counts events.
        yield f"  reason: {' '.join(reason.split())}"
