"""Loads the filters anew when their files change.

The files are looked at each second, and nothing more clever: a look at twenty files takes 80
microseconds. inotify would have to be set on each link's target and set again when that is swapped,
as Kubernetes does with a ConfigMap; over NFS, and for what another container writes into a
volume with some drivers, it says nothing at all. So a look would be needed beside it anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bridge.errors import LoadError
from bridge.logs import get_logger
from bridge.metrics import Metrics
from bridge.snapshot import Snapshot, Stats, look, take
from bridge.workers import wire
from bridge.workers.generation import FiltersNotLoaded
from bridge.workers.pool import Pool

_LEAST_REST = 100  # times what a look took: a huge folder costs no more than a hundredth of a CPU
_RESTLESS = 60  # looks that each saw a change, after which to say that nothing is loaded meanwhile
_NOTHING = Snapshot({}, {}, {})

_log = get_logger(__name__)


@dataclass(frozen=True)
class Reloaded:
    """How a reload went.

    Attributes:
        files: which files had changed, by their paths from the folder on.
        mistakes: why the filters of before go on; none where the new ones took over.
        filters: those that run now, in order.
        before: those that ran before.
        generation: the number of those that run now.
        seconds: how long loading took.
    """

    files: Sequence[str]
    mistakes: Sequence[str]
    filters: Sequence[wire.Filter]
    before: Sequence[wire.Filter]
    generation: int
    seconds: float

    @property
    def added(self) -> list[str]:
        """Filters that did not run before: name and pattern."""
        known = {one.name for one in self.before}
        return [f"{one.name} ({one.pattern})" for one in self.filters if one.name not in known]

    @property
    def removed(self) -> list[str]:
        """Filters that run no more."""
        left = {one.name for one in self.filters}
        return [f"{one.name} ({one.pattern})" for one in self.before if one.name not in left]

    @property
    def moved(self) -> list[str]:
        """Filters that are for other tags than before."""
        patterns = {one.name: one.pattern for one in self.before}
        return [
            f"{one.name} ({patterns[one.name]} → {one.pattern})"
            for one in self.filters
            if patterns.get(one.name, one.pattern) != one.pattern
        ]


def log(reloaded: Reloaded) -> None:
    """Write a reload into the log."""
    if reloaded.mistakes:
        _log.error(
            "filters not reloaded, those from before go on",
            mistakes=list(reloaded.mistakes),
            files=list(reloaded.files),
            next="correct them and they are loaded; SIGHUP tries again as they are",
        )
        return
    _log.info(
        "filters reloaded",
        files=list(reloaded.files),
        generation=reloaded.generation,
        filters=[f"{one.name} ({one.pattern})" for one in reloaded.filters],
        added=reloaded.added,
        removed=reloaded.removed,
        moved=reloaded.moved,
        seconds=round(reloaded.seconds, 3),
    )


class Reload:
    """Watches the files of the filters, and has the pool load them.

    Args:
        path: the folder of filter files, or a single file.
        names: patterns of the names of files that count beside Python's.
        interval: seconds between looks; None looks only when asked to.
        pool: loads them.
        metrics: where to count.
        report: told how each reload went.
    """

    def __init__(
        self,
        path: Path,
        names: str,
        *,
        interval: float | None,
        pool: Pool,
        metrics: Metrics,
        report: Callable[[Reloaded], None] = log,
    ) -> None:
        self._path = path
        self._names = names
        self._interval = interval
        self._pool = pool
        self._metrics = metrics
        self._report = report
        self._asked = asyncio.Event()
        self._running = self._tried = _NOTHING
        self._mistakes: Sequence[str] = ()

    @property
    def trouble(self) -> str | None:
        """Why the filters that run are not those on disk; None if they are."""
        if not self._mistakes:
            return None
        return (
            f"generation {self._pool.generation} goes on, what is on disk cannot be loaded: "
            + "; ".join(self._mistakes)
        )

    def ask(self) -> None:
        """Load the filters now, also where no file has changed."""
        self._asked.set()

    async def open(self) -> None:
        """Have the pool load the filters for the first time.

        Raises:
            FiltersNotLoaded: it cannot.
        """
        try:
            snapshot = await asyncio.to_thread(take, self._path, self._names)
        except LoadError as error:
            raise FiltersNotLoaded([str(error)]) from error
        await self._pool.open(snapshot.sources)
        self._tried = snapshot
        self._took_over(snapshot)

    async def run(self) -> None:
        """Load them again as often as they change, one time after the other, until cancelled."""
        before = self._tried.stats
        rest, restless = 0.0, 0
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    self._asked.wait(), self._interval and max(self._interval, rest)
                )
            if self._asked.is_set():
                await self._load()
                continue
            stats, took = await asyncio.to_thread(_look, self._path, self._names)
            rest = _LEAST_REST * took
            moving, before = _moving(before, stats), stats
            restless = restless + 1 if moving else 0
            if restless == _RESTLESS:
                _log.warning(
                    "filters are not reloaded while their files go on changing",
                    files=moving,
                    next="narrow filters.reload_files, or have them written elsewhere",
                )
            if not moving and stats != self._tried.stats:
                await self._load()

    async def _load(self) -> None:
        """Load what is there, unless it is what was loaded last and nobody asked for it."""
        asked = self._asked.is_set()
        self._asked.clear()
        try:
            snapshot = await asyncio.to_thread(take, self._path, self._names, self._tried)
        except LoadError as error:
            self._tried = _NOTHING
            self._fail(_NOTHING, [str(error)], 0)
            return
        if not asked and await asyncio.to_thread(look, self._path, self._names) != snapshot.stats:
            return  # they change again, which the next look sees
        tried, self._tried = self._tried, snapshot
        if asked or snapshot.digests not in (tried.digests, self._running.digests):
            await self._replace(snapshot)
        elif self._mistakes and snapshot.digests == self._running.digests:
            self._mistakes = ()
            self._metrics.filters_outdated.set(0)
            _log.info("the files are again those of the filters that run")

    async def _replace(self, snapshot: Snapshot) -> None:
        before, files = self._pool.filters, snapshot.changes(self._running)
        began = time.monotonic()
        try:
            await self._pool.reload(snapshot.sources)
        except FiltersNotLoaded as error:
            self._fail(snapshot, error.mistakes, time.monotonic() - began)
            return
        self._took_over(snapshot)
        self._metrics.filter_reloads.labels("ok").inc()
        seconds = time.monotonic() - began
        self._report(
            Reloaded(files, (), self._pool.filters, before, self._pool.generation, seconds)
        )

    def _fail(self, snapshot: Snapshot, mistakes: Sequence[str], seconds: float) -> None:
        self._mistakes = list(dict.fromkeys(mistakes))
        self._metrics.filter_reloads.labels("failed").inc()
        self._metrics.filters_outdated.set(1)
        filters, files = self._pool.filters, snapshot.changes(self._running)
        self._report(
            Reloaded(files, self._mistakes, filters, filters, self._pool.generation, seconds)
        )

    def _took_over(self, snapshot: Snapshot) -> None:
        self._running = snapshot
        self._mistakes = ()
        self._metrics.filters_outdated.set(0)
        self._metrics.filters_loaded.set_to_current_time()
        self._metrics.filters_running.info(
            {"generation": str(self._pool.generation), "digest": snapshot.digest}
        )


def _look(path: Path, names: str) -> tuple[Stats, float]:
    """Look, and return how many seconds of CPU it took: on a busy machine it may wait for that."""
    began = time.thread_time()
    return look(path, names), time.thread_time() - began


def _moving(before: Stats, stats: Stats) -> list[str]:
    """Return which files have changed from one look to the next."""
    names = before.keys() | stats.keys()
    return sorted(name for name in names if before.get(name) != stats.get(name))
