"""One run of a chunk through its filters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import Raw

from bridge.pipeline.chunk import Chunk, Item
from bridge.pipeline.deadletters import Failure, failure_of
from bridge.pipeline.outcome import Timing
from bridge.pipeline.payload import JsonPayload, RecordPayload


class Run:
    """What the stages of a run share.

    Args:
        chunk: the events.
        payload: what of them the filters see.
        raw: whether there may be items that are not decoded.

    Attributes:
        failures: the times of events that failed, and why.
        dropped: how many a filter dropped.
        diverted: events that got another tag: the index of the stage from which on they are to be
            run, and that tag, to the items.
        timings: of each stage that ran, by its index.
    """

    def __init__(self, chunk: Chunk, payload: RecordPayload | JsonPayload, *, raw: bool) -> None:
        self.chunk = chunk
        self.payload = payload
        self.raw = raw
        self.failures: list[tuple[Raw, Failure]] = []
        self.dropped = 0
        self.diverted: dict[tuple[int, str], list[Item]] = {}
        self.timings: dict[int, Timing] = {}

    def fail(
        self, time: Raw, error: BaseException, name: str | None = None, file: Path | None = None
    ) -> None:
        """Send an item's event to the error stream.

        Args:
            time: the item's time.
            error: why.
            name: the filter.
            file: its file, if it was the filter that raised.
        """
        self.failures.append((time, failure_of(error, name, file)))

    def divert(self, stage: int, tag: str, item: Item) -> None:
        """Have an item go on under another tag, from a stage on."""
        self.diverted.setdefault((stage, tag), []).append(item)

    def count(self, stage: int, *numbers: Any) -> None:
        """Add to what is known of a stage: name, seconds, events in, dropped and failed."""
        name, seconds, came, dropped, failed = numbers
        _, *known = self.timings.get(stage, (name, 0.0, 0, 0, 0))
        self.timings[stage] = (
            name,
            known[0] + seconds,
            known[1] + came,
            known[2] + dropped,
            known[3] + failed,
        )
        self.dropped += dropped
