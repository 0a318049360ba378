"""Filters in this very process, which is the fastest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, TypeVar

from bridge import instruments
from bridge.errors import Retry
from bridge.loading import load
from bridge.pipeline import Outcome, Pipeline
from bridge.testing.result import Counts, FilterCounts, Gains
from bridge.workers.process import Gatherer


class InProcess:
    """The filters of a folder, loaded here.

    Args:
        folder: the folder, or a file.
        payload: as ``filters.payload``.
        payload_key: as ``filters.payload_key``.
        parameters: as ``filters.parameters``.

    Attributes:
        filters: name and pattern of each filter.

    Raises:
        ExceptionGroup: of :class:`~bridge.errors.LoadError`: the filters cannot be loaded.
    """

    def __init__(
        self,
        folder: Path,
        *,
        payload: Literal["raw", "json"],
        payload_key: str,
        parameters: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._instruments: instruments.Known = {}
        self._counts: dict[str, FilterCounts] = {}
        self._gather = _Gather()
        with instruments.kept_in(self._instruments):
            registry = load(folder, parameters)
        self._pipeline = Pipeline(
            registry, payload=payload, payload_key=payload_key, gather=self._gather
        )
        self.filters: Sequence[tuple[str, str]] = [
            (one.name, one.pattern) for one in registry.filters
        ]

    def run(self, tag: str, entries: bytes, count: int | None) -> Outcome | Retry:
        """See :class:`~bridge.testing.result.Engine`."""
        with instruments.kept_in(self._instruments):
            try:
                outcome = self._pipeline.run(tag, entries, count)
            except Retry as retry:
                return retry
        for name, _, *numbers in outcome.filters:
            known = self._counts.get(name, FilterCounts())
            self._counts[name] = FilterCounts(*map(sum, zip(known, numbers, strict=True)))
        return outcome

    def counts(self) -> Counts:
        """See :class:`~bridge.testing.result.Engine`."""
        gains = Gains()
        with instruments.kept_in(self._instruments):
            for delta in instruments.drain():
                for name, labels, gained in _samples(*delta):
                    for key in {name, f"{name}{{{labels}}}" if labels else name}:
                        if gained:
                            gains[key] += gained
        counts, self._counts = self._counts, {}
        return Counts(gains, counts)

    def close(self) -> None:
        """Close the filters that have something to close.

        Raises:
            ExceptionGroup: of what they raised.
        """
        try:
            self._pipeline.close()
        finally:
            self._gather.close()


class _Gather:
    """A worker's gatherer, also for those who call from within a running event loop."""

    def __init__(self) -> None:
        self._gatherer = Gatherer()

    def __call__(
        self, function: Callable[[Any], Awaitable[Any]], arguments: list[Any], concurrency: int
    ) -> list[Any]:
        """Return a result, or the exception raised, an argument."""
        return _away(lambda: self._gatherer(function, arguments, concurrency))

    def close(self) -> None:
        """Close the loop."""
        _away(self._gatherer.close)


_T = TypeVar("_T")


def _away(function: Callable[[], _T]) -> _T:
    """Call what runs an event loop, in a thread of its own if this one has such a loop already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return function()
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(function).result()


def _samples(
    name: str,
    _help: str,
    kind: str,
    labels: Sequence[str],
    buckets: Sequence[float],
    gains: Iterable[tuple[Sequence[str], Any]],
) -> Iterator[tuple[str, str, float]]:
    """Return what a metric gained as ``/metrics`` has it: names, labels and values."""
    for values, gained in gains:
        pairs = dict(zip(labels, values, strict=True))
        if kind == "counter":
            yield f"{name.removesuffix('_total')}_total", _joined(pairs), gained
            continue
        *counts, total, count = gained
        bounds = [str(float(bound)) for bound in buckets] + ["+Inf"]
        for bound, below in zip(bounds, [*accumulate(counts), count], strict=True):
            yield f"{name}_bucket", _joined({**pairs, "le": bound}), below
        yield f"{name}_sum", _joined(pairs), total
        yield f"{name}_count", _joined(pairs), count


def _joined(labels: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
