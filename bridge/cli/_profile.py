"""What ``fluent-bridge bench`` says of what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bridge.cpu import cpu_quota
from bridge.forward import Chunk
from bridge.profile import Profile
from bridge.settings import FiltersSettings

# Of a worker's time, kept free: for peaks, and for receiving chunks and sending results.
_HEADROOM = 0.3
_WAITING = 0.8  # busy for less of their time, filters are said to wait
_DISTURBED = 0.8  # likewise of the bare loop, which waits for nothing: others have the cores


class Advice(NamedTuple):
    """How many workers a rate takes.

    Attributes:
        target: events a second.
        workers: for ``workers.count``.
        cores: that they keep busy.
    """

    target: float
    workers: int
    cores: int

    @classmethod
    def of(cls, profile: Profile, target: float) -> Advice:
        """Return what a profile, of at least one event, says of a rate."""
        workers = math.ceil(target / (profile.rate * (1 - _HEADROOM)))
        return cls(target, workers, math.ceil(workers * profile.busy))


def as_json(
    profile: Profile, chunks: Sequence[Chunk], workers: int, advice: Advice | None
) -> dict[str, Any]:
    """Return what was measured as a JSON document; times are of one event."""
    document: dict[str, Any] = {
        "sample": {
            "events": sum(one.count or 0 for one in chunks),
            "bytes": sum(len(one.entries) for one in chunks),
        },
        "workers": workers,
        "events": profile.events,
        "out": profile.out,
        "dropped": profile.dropped,
        "dead_letters": profile.errors,
        "reasons": list(profile.reasons),
        "chunks": profile.chunks,
        "chunks_retried": profile.retried,
    }
    if profile.events:
        document |= {
            "events_per_second_a_worker": profile.rate,
            "events_per_second": profile.rate * workers,
            "microseconds": {name: each * 1e6 for name, each in _parts(profile).items()},
            "microseconds_in_all": 1e6 / profile.rate,
            "cpu_microseconds_in_all": profile.cpu_seconds / profile.events * 1e6,
            "bare_loop_microseconds": 1e6 / profile.bare_rate if profile.bare_rate else None,
            "busy": profile.busy,
        }
    if advice is not None:
        document |= {
            "target_rate": advice.target,
            "headroom": _HEADROOM,
            "settings": {"workers.count": advice.workers},
            "cores_for_workers": advice.cores,
        }
    return document


def show(
    profile: Profile,
    chunks: Sequence[Chunk],
    settings: FiltersSettings,
    workers: int,
    advice: Advice | None,
) -> None:
    """Print what was measured."""
    console = Console(highlight=False, soft_wrap=True)
    for line in (*_about(chunks, settings), *_warnings(profile)):
        console.print(Text(line))
    if not profile.events:
        return
    console.print()
    console.print(_table(profile))
    console.print()
    console.print(f"{profile.rate:,.0f} events/s a worker", style="bold")
    if workers > 1:
        console.print(f"{profile.rate * workers:,.0f} events/s with {workers} workers at once")
    if bare := profile.bare_rate:
        console.print(
            f"{bare:,.0f} events/s of a bare loop, {1e6 / bare:.2f} µs an event: an event of yours"
            f" takes {bare / profile.rate:.2f} times as long as decoding and encoding it"
        )
    if advice is not None:
        console.print()
        for line in _advised(advice, profile.rate):
            console.print(line)


def _parts(profile: Profile) -> dict[str, float]:
    """Return the seconds of each part of an event's time."""
    sums = {
        "cut": profile.cutting,
        "decode": profile.decoding,
        **{f"filter {name}": seconds for name, seconds in profile.filters.items()},
        "encode": profile.encoding,
        "rest": profile.rest,
    }
    return {name: seconds / profile.events for name, seconds in sums.items()}


def _about(chunks: Sequence[Chunk], settings: FiltersSettings) -> Iterator[str]:
    events = sum(one.count or 0 for one in chunks)
    size = sum(len(one.entries) for one in chunks) // events
    tags = ", ".join(dict.fromkeys(one.tag for one in chunks))
    yield (
        f"{events:,} events of {size:,} bytes in chunks of {chunks[0].count:,}, tag {tags};"
        f" filters of {settings.path}, payload {settings.payload}"
    )


def _warnings(profile: Profile) -> Iterator[str]:
    """Say what became of the events, and what distorts the figures."""
    if profile.retried:
        yield (
            f"{profile.retried:,} of {profile.chunks:,} chunks were asked for again by"
            " bridge.Retry: they are in no figure; see that what the filters wait for is there"
        )
    events = profile.events
    if not events:
        return
    yield (
        f"{profile.out / events:.1%} out, {profile.dropped / events:.1%} dropped,"
        f" {profile.errors / events:.1%} dead letters"
    )
    if profile.errors:
        yield "A dead letter costs more than most events; these are among the reasons:"
        for reason in profile.reasons:
            yield f"  {' '.join(reason.split())}"
    if profile.bare_cpu_seconds < _DISTURBED * profile.bare_seconds:
        yield "The machine has other work: on a quiet one all rates are higher"
    if profile.busy < _WAITING:
        yield (
            f"The filters wait, the CPU is busy for {profile.busy:.0%} of their time: there may be"
            " more workers than cores"
        )


def _table(profile: Profile) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("")
    table.add_column("µs an event", justify="right")
    table.add_column("share", justify="right")
    for name, seconds in _parts(profile).items():
        table.add_row(Text(name), f"{seconds * 1e6:.2f}", f"{seconds * profile.rate:.1%}")
    table.add_row("all", f"{1e6 / profile.rate:.2f}", "100.0%", style="bold")
    return table


def _advised(advice: Advice, rate: float) -> Iterator[str]:
    yield (
        f"For {advice.target:,.0f} events/s ask for {advice.workers:,} workers: {rate:,.0f}"
        f" events/s each, {_HEADROOM:.0%} kept free. They keep up to {advice.cores:,} cores busy,"
        " beside Fluentd and the sidecar's own process."
    )
    yield f"  workers.count: {advice.workers}  (--workers.count {advice.workers})"
    if advice.cores > (quota := cpu_quota()):
        yield (
            f"This machine, or its container, has {quota:,}: give the pod more, or run"
            f" {math.ceil(advice.cores / quota):,} replicas of it with {quota:,} workers each."
        )
