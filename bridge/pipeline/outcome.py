"""What a run of a pipeline gives back."""

from __future__ import annotations

from dataclasses import dataclass, field

Timing = tuple[str, float, int, int, int]


@dataclass(slots=True)
class Stream:
    """Entries that leave under one tag.

    Attributes:
        tag: the tag.
        entries: packed entries; a view of the input where nothing was changed.
        count: how many they are.
        error: whether it is the error stream.
    """

    tag: str
    entries: bytes | bytearray | memoryview
    count: int
    error: bool = False


@dataclass(slots=True)
class Outcome:
    """The results of a run.

    Attributes:
        streams: what leaves, the error stream last.
        received: events that were run.
        dropped: events that a filter dropped.
        errors: events in the error stream.
        filters: name, seconds, events in, dropped and failed of each filter that ran, in order.
    """

    streams: list[Stream] = field(default_factory=list)
    received: int = 0
    dropped: int = 0
    errors: int = 0
    filters: list[Timing] = field(default_factory=list)


def merge(outcomes: list[Outcome]) -> Outcome:
    """Return the outcomes of consecutive events as one."""
    if len(outcomes) == 1:
        return outcomes[0]
    merged = Outcome()
    parts: dict[tuple[bool, str], list[Stream]] = {}
    timings: dict[str, Timing] = {}
    for outcome in outcomes:
        merged.received += outcome.received
        merged.dropped += outcome.dropped
        merged.errors += outcome.errors
        for stream in outcome.streams:
            parts.setdefault((stream.error, stream.tag), []).append(stream)
        for name, *numbers in outcome.filters:
            _, *sums = timings.get(name, (name, 0.0, 0, 0, 0))
            seconds, came, dropped, failed = map(sum, zip(sums, numbers, strict=True))
            timings[name] = (name, seconds, int(came), int(dropped), int(failed))
    for (error, tag), streams in sorted(parts.items(), key=lambda part: part[0][0]):
        entries = b"".join([stream.entries for stream in streams])
        merged.streams.append(Stream(tag, entries, sum(s.count for s in streams), error))
    merged.filters = list(timings.values())
    return merged
