"""What became of events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from bridge.errors import Retry
from bridge.events import Event, EventTime
from bridge.forward import codec
from bridge.pipeline import Outcome


class FilterCounts(NamedTuple):
    """What a filter did.

    Attributes:
        events: events that it was given.
        dropped: those that it dropped.
        failed: those that went to the error stream by it.
    """

    events: int = 0
    dropped: int = 0
    failed: int = 0


class Gains(dict[str, float]):
    """What metrics gained; one that is not there gained nothing."""

    def __missing__(self, name: str) -> float:
        return 0.0


class Counts(NamedTuple):
    """What filters counted, and what was counted of them.

    Attributes:
        metrics: what their own instruments gained.
        filters: what each of them did.
    """

    metrics: Gains
    filters: dict[str, FilterCounts]


class Engine(Protocol):
    """What runs the filters of a folder.

    Attributes:
        filters: name and tag pattern of each, in order.
    """

    filters: Sequence[tuple[str, str]]

    def run(self, tag: str, entries: bytes, count: int | None) -> Outcome | Retry:
        """Return what becomes of a chunk.

        Args:
            tag: its tag.
            entries: packed entries.
            count: how many they are, if that is known.

        Raises:
            NotAnEvent: it holds something else.
        """

    def counts(self) -> Counts:
        """Return what was counted since the last call."""

    def close(self) -> None:
        """Close the filters."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that went to the error stream.

    Attributes:
        error_class: the exception's class; ``Reject`` for :class:`bridge.Reject`.
        message: what it says.
        filter: the filter; None where the event came to none.
        traceback: where it was raised, from the user's file on; None for a Reject.
        attempts: how many times it was run.
        tag: its tag as it came.
        time: its time as it came.
        record: its record as it came.
    """

    error_class: str
    message: str
    filter: str | None
    traceback: str | None
    attempts: int
    tag: str
    time: EventTime | int
    record: dict[Any, Any]

    @property
    def reason(self) -> str:
        """Why, in one text: what the Reject says, or the exception's class and message."""
        if self.error_class == "Reject":
            return self.message
        return f"{self.error_class}: {self.message}"


@dataclass(slots=True)
class Result:
    """What became of events.

    Attributes:
        events: what came out, those of a chunk tag by tag; with payload json their records are the
            documents.
        dead_letters: what went to the error stream.
        received: how many events went in.
        dropped: how many of them a filter dropped.
        retry: the seconds that a filter wants to wait before all comes again, None if none does;
            there are no results then.
        filters: what each filter did that was given events, by its name.
        metrics: what the filters' own counters and histograms gained: by the names that they have
            in ``/metrics``, over all labels, and by name and labels, as in ``seen_total{site=a}``;
            0 for all others.
        entries: what came out as packed entries, by tag, the error stream's included.
    """

    events: list[Event] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    received: int = 0
    dropped: int = 0
    retry: float | None = None
    filters: dict[str, FilterCounts] = field(default_factory=dict)
    metrics: Gains = field(default_factory=Gains)
    entries: dict[str, bytes] = field(default_factory=dict)

    @property
    def records(self) -> list[dict[Any, Any]]:
        """The records of what came out."""
        return [event.record for event in self.events]

    def add(self, outcome: Outcome, document: Callable[[dict[Any, Any]], dict[Any, Any]]) -> None:
        """Add what became of a chunk.

        Args:
            outcome: what a pipeline made of it.
            document: returns what is to be shown of a record.
        """
        self.received += outcome.received
        self.dropped += outcome.dropped
        for stream in outcome.streams:
            entries = bytes(stream.entries)
            self.entries[stream.tag] = self.entries.get(stream.tag, b"") + entries
            decoded = codec.decode_entries(entries)
            if stream.error:
                self.dead_letters += [_dead_letter(time, letter) for time, letter in decoded]
            else:
                self.events += [
                    Event(stream.tag, _time(time), document(record)) for time, record in decoded
                ]


def _dead_letter(time: codec.Time, letter: dict[Any, Any]) -> DeadLetter:
    error = letter["error"]
    return DeadLetter(
        error["class"],
        error["message"],
        error["filter"],
        error["traceback"],
        error["attempts"],
        letter["tag"],
        _time(time),
        letter["record"],
    )


def _time(time: codec.Time) -> EventTime | int:
    return EventTime.from_float(time) if isinstance(time, float) else time
