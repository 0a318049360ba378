"""Running chunks through filters as a worker does, and measuring it."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from time import perf_counter, process_time

from bridge.errors import Retry
from bridge.filters import Registry
from bridge.forward import Chunk
from bridge.memory import keep_freed_buffers
from bridge.pipeline.deadletters import reason_of
from bridge.profile.profile import Profile
from bridge.profile.timed import Payload, TimedPipeline, bare_loop
from bridge.samples import Sample, unpacked
from bridge.workers.process import JOBS_BETWEEN_COLLECTIONS

_WARM = 0.1  # share of the time that is run and not counted
_MOST_REASONS = 3


def prepare(samples: Iterator[Sample], tag: str | None, size: int, most: int) -> list[Chunk]:
    """Return samples as chunks of a size; few samples are repeated until they fill one.

    Args:
        samples: the events.
        tag: the tag for all of them, whatever they have.
        size: events a chunk.
        most: events to take.
    """
    by_tag: dict[str, list[bytes]] = {}
    for number, sample in enumerate(samples, 1):
        by_tag.setdefault(tag or sample.tag or "", []).append(sample.entry)
        if number == most:
            break
    made = []
    for its, entries in by_tag.items():
        filled = entries * -(-size // len(entries)) if len(entries) < size else entries
        last = len(filled) - len(filled) % size  # a short one would weigh as much as the others
        for start in range(0, last, size):
            some = filled[start : start + size]
            made.append(Chunk(its, b"".join(some), len(some), None, None))
    return made


def measure(
    registry: Registry,
    chunks: Sequence[Chunk],
    seconds: float,
    *,
    payload: Payload = "raw",
    payload_key: str = "message",
    start: Callable[[], object] = lambda: None,
) -> Profile:
    """Run chunks through filters as a worker runs them, in turn with a bare loop, and measure.

    The filters are closed in the end.

    Args:
        registry: the filters.
        chunks: one after the other, and again from the first.
        seconds: how long; one chunk is run at least.
        payload: ``raw`` or ``json``, as for :class:`~bridge.pipeline.Pipeline`.
        payload_key: the field that holds the document.
        start: called when everything is warm.
    """
    keep_freed_buffers()
    pipeline = TimedPipeline(registry, payload, payload_key)
    bare = [bare_loop(chunk, payload, payload_key) for chunk in chunks]
    profile = Profile()
    with _collector_off():
        try:
            _run(pipeline, chunks, bare, seconds * _WARM, Profile())
            start()
            _run(pipeline, chunks, bare, seconds, profile)
        finally:
            pipeline.close()
            pipeline.gather.close()
    return profile


def _run(
    pipeline: TimedPipeline,
    chunks: Sequence[Chunk],
    bare: Sequence[tuple[Callable[[], object], int]],
    seconds: float,
    profile: Profile,
) -> None:
    ends = perf_counter() + seconds
    for number, (chunk, (loop, count)) in enumerate(cycle(zip(chunks, bare, strict=True))):
        if number and perf_counter() >= ends:
            break
        cpu, began = process_time(), perf_counter()
        loop()
        profile.bare_seconds += perf_counter() - began
        profile.bare_cpu_seconds += process_time() - cpu
        profile.bare_events += count
        _run_one(pipeline, chunk, profile)


def _run_one(pipeline: TimedPipeline, chunk: Chunk, profile: Profile) -> None:
    pipeline.sliced = pipeline.decoding = pipeline.encoding = 0.0
    profile.chunks += 1
    cpu, began = process_time(), perf_counter()
    try:
        outcome = pipeline.run(chunk.tag, chunk.entries, chunk.count)
    except Retry:
        profile.retried += 1
        return
    profile.cutting += perf_counter() - began - pipeline.sliced
    if profile.chunks % JOBS_BETWEEN_COLLECTIONS == 0:
        gc.collect()
    profile.seconds += perf_counter() - began
    profile.cpu_seconds += process_time() - cpu
    profile.decoding += pipeline.decoding
    profile.encoding += pipeline.encoding
    for name, took, *_ in outcome.filters:
        profile.filters[name] = profile.filters.get(name, 0.0) + took
    profile.events += outcome.received
    profile.dropped += outcome.dropped
    profile.errors += outcome.errors
    profile.out += sum(stream.count for stream in outcome.streams if not stream.error)
    if outcome.errors and len(profile.reasons) < _MOST_REASONS:
        for stream in outcome.streams:
            if stream.error:
                letters = unpacked(stream.entries)
                profile.reasons.update(reason_of(letter.record) for letter in letters)


@contextlib.contextmanager
def _collector_off() -> Iterator[None]:
    """Treat the collector of garbage as a worker does (workers/process.py)."""
    gc.disable()
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()
