"""What is measured."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields


@dataclass(slots=True)
class Profile:
    """What was measured. Seconds are of the clock, unless they are the CPU's.

    Attributes:
        events: events that were run.
        seconds: how long that took; the parts below add up to it.
        cpu_seconds: CPU time in it.
        cutting: cutting chunks into slices and joining their results.
        decoding: making records, or documents, of bytes.
        filters: of each filter, by name in their order.
        encoding: making bytes of what the filters made.
        out: results that left.
        dropped: events that a filter dropped.
        errors: events in the error stream.
        reasons: why, most frequent first.
        chunks: chunks that were run.
        retried: chunks that a filter asked for again; they are in no other figure.
        bare_events: events of the bare loop, which decodes an event and encodes it again.
        bare_seconds: how long that took.
        bare_cpu_seconds: CPU time in it.
    """

    events: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    cutting: float = 0.0
    decoding: float = 0.0
    filters: dict[str, float] = field(default_factory=dict)
    encoding: float = 0.0
    out: int = 0
    dropped: int = 0
    errors: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    chunks: int = 0
    retried: int = 0
    bare_events: int = 0
    bare_seconds: float = 0.0
    bare_cpu_seconds: float = 0.0

    @property
    def rest(self) -> float:
        """All that is in no other part: bookkeeping, dead letters, the collection of garbage."""
        parts = (self.cutting, self.decoding, sum(self.filters.values()), self.encoding)
        return self.seconds - sum(parts)

    @property
    def rate(self) -> float:
        """Events a second, 0 where none was run."""
        return self.events / self.seconds if self.seconds else 0.0

    @property
    def bare_rate(self) -> float:
        """Events a second of the bare loop, 0 where it could decode none."""
        return self.bare_events / self.bare_seconds if self.bare_seconds else 0.0

    @property
    def busy(self) -> float:
        """Share of the time in which the CPU was busy, 1 where the filters wait for nothing.

        Other work of the machine is taken out by what it took from the bare loop.
        """
        if not self.seconds or not self.bare_cpu_seconds:
            return 1.0
        alone = self.bare_cpu_seconds / self.bare_seconds
        return min(self.cpu_seconds / self.seconds / alone, 1.0)

    def add(self, other: Profile) -> None:
        """Add what was measured in another process."""
        for each in fields(self):
            mine, its = getattr(self, each.name), getattr(other, each.name)
            if isinstance(its, Counter):
                mine.update(its)
            elif isinstance(its, dict):
                mine |= {name: mine.get(name, 0.0) + its[name] for name in its}
            else:
                setattr(self, each.name, mine + its)
