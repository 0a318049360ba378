"""A pipeline from topic to topic, measured while it runs steadily."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from benchmarks.cost import Processes

_LOOK = 0.1
_LOOK_AT_MEMORY = 1.0


@dataclass
class Figures:
    """One run; CPU in seconds.

    Attributes:
        events_per_second: while it ran steadily.
        cpu: an event, by role, while it ran steadily.
        cpu_since_first: an event, of all processes, from the first event out to the last.
        cpu_to_first: of all processes together, from their start to the first event out.
        cpu_whole: an event, of all processes, from their start to the last event out.
        memory: most that all processes took together, bytes.
    """

    events_per_second: float
    cpu: dict[str, float]
    cpu_since_first: float
    cpu_to_first: float
    cpu_whole: float
    memory: int

    def over(self, excess: float) -> Figures:
        """Return the figures, which count offsets, for events: there are so many offsets an event."""
        return replace(
            self,
            events_per_second=self.events_per_second / excess,
            cpu={role: cpu * excess for role, cpu in self.cpu.items()},
            cpu_since_first=self.cpu_since_first * excess,
            cpu_whole=self.cpu_whole * excess,
        )

    @property
    def cpu_sum(self) -> float:
        """An event, of all processes together."""
        return sum(self.cpu.values())


class Incomplete(Exception):
    """A pipeline did not bring out all events; the figures would mean nothing."""


class Ends:
    """The last offsets of a topic's partitions, as a reader of committed messages sees them."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "benchmark",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 50,
                "log_level": 2,
            }
        )
        partitions = self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        self._places = [TopicPartition(topic, partition) for partition in partitions]

    def sum(self) -> int:
        """Return how many offsets are taken; transactions' markers take some too."""
        return sum(
            self._consumer.get_watermark_offsets(place, timeout=10)[1] for place in self._places
        )

    def all_read(self, events: int, timeout: float = 120.0) -> int:
        """Read the topic until it holds so many events → how many offsets they take.

        Raises:
            Incomplete: it holds fewer, or more.
        """
        self._consumer.assign(
            [TopicPartition(one.topic, one.partition, OFFSET_BEGINNING) for one in self._places]
        )
        found, deadline = 0, time.monotonic() + timeout
        while found < events and time.monotonic() < deadline:
            found += sum(not message.error() for message in self._consumer.consume(5_000, 0.5))
        found += len(self._consumer.consume(5_000, 0.5))
        if found != events:
            raise Incomplete(f"{found} events came out of {events}: the figures would mean nothing")
        return self.sum()

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()


def measure(
    processes: Processes, ends: Ends, events: int, *, warm: float, timeout: float
) -> Figures:
    """Watch a pipeline until it has brought out all events.

    Args:
        processes: what is counted, its programs just started.
        ends: of the output topic, empty at the start.
        events: how many there are to come.
        warm: the share of events that are out before it counts as running steadily.
        timeout: seconds that it may take.

    Raises:
        Incomplete: they did not all come in time.
    """
    first = started = None
    out_first = 0
    memory = 0
    began = looked_at_memory = time.monotonic()
    while True:
        time.sleep(_LOOK)
        # The CPU first: asking the broker takes time in which more comes out than is counted.
        cpu, now = processes.cpu(), time.monotonic()
        out = ends.sum()
        if out and first is None:
            first, out_first = sum(cpu.values()), out
        if started is None and out >= events * warm:
            started = (now, out, cpu)
        if now - looked_at_memory > _LOOK_AT_MEMORY or out >= events:
            memory, looked_at_memory = max(memory, processes.memory()), now
        if out >= events:
            break
        if now - began > timeout or not processes.running:
            raise Incomplete(f"only {out} of {events} events were out after {now - began:.0f} s")
    assert started is not None
    assert first is not None
    began_steady, out_then, cpu_then = started
    steady = out - out_then
    return Figures(
        events_per_second=steady / (now - began_steady),
        cpu={role: (cpu[role] - cpu_then.get(role, 0.0)) / steady for role in cpu},
        cpu_since_first=(sum(cpu.values()) - first) / (out - out_first),
        cpu_to_first=first,
        cpu_whole=sum(cpu.values()) / out,
        memory=memory,
    )
