"""The pool of workers: a queue of jobs, and the processes, one a core, that take them.

The workers are of one generation, but for a moment at a reload: the next one loads its filters
beside them, takes over when all its workers have, and they end after the jobs that they have.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Mapping

import msgspec

from bridge.budget import Budget
from bridge.cpu import cpu_quota
from bridge.errors import BridgeError
from bridge.metrics import Metrics
from bridge.tap import Taps
from bridge.workers import wire
from bridge.workers.generation import FiltersNotLoaded, Generation
from bridge.workers.worker import Assignment, Entries, Worker

# Each worker has the next job in its socket while it runs one, so that it never waits for the
# transport.
_JOBS_A_WORKER = 2
# What loading beside workers that have jobs may take of all CPUs: the rest is theirs. Without a
# bound, reload after reload halves what passes on two CPUs; with it 0.88 is left (bench-reload).
# Niceness would say the same, but an unprivileged process cannot take it back.
_SHARE = 0.15

Answer = tuple[wire.Reply, memoryview]


class Superseded(BridgeError):
    """A job was for the filters of a generation, and those have been replaced."""


class Pool:
    """Workers, and the jobs that wait for one.

    Args:
        start: what the workers load, the sources aside.
        count: how many workers to run.
        deadline: seconds that a job may take.
        memory_limit: bytes that a worker may hold; None is no limit.
        start_timeout: seconds that a worker may take to load the filters.
        budget: bounds the results that wait to be delivered.
        metrics: where to count.
        taps: who looks at events.
    """

    def __init__(
        self,
        start: wire.Start,
        *,
        count: int,
        deadline: float,
        memory_limit: int | None = None,
        start_timeout: float,
        budget: Budget,
        metrics: Metrics,
        taps: Taps | None = None,
    ) -> None:
        self._start = start
        self._count = count
        self._deadline = deadline
        self._memory_limit = memory_limit
        self._start_timeout = start_timeout
        self._metrics = metrics
        self._taps = taps or Taps()
        self._budget = budget
        budget.on_room = self._dispatch
        self._queue: deque[Assignment] = deque()
        self._current: Generation | None = None
        self._loading: Generation | None = None
        self._retiring: dict[Generation, asyncio.Task[None]] = {}
        self._generations = 0

    @property
    def ready(self) -> int:
        """How many workers can take jobs."""
        return sum(1 for _ in self._current.usable) if self._current else 0

    @property
    def idle(self) -> int:
        """How many workers have nothing to do and nothing waiting for them."""
        if self._queue or not self._current:
            return 0
        return sum(not one.load for one in self._current.usable)

    @property
    def generation(self) -> int:
        """Which generation of workers takes jobs; 0 before the first."""
        return self._current.number if self._current else 0

    @property
    def filters(self) -> list[wire.Filter]:
        """What that generation has loaded, in order."""
        return self._current.filters if self._current else []

    async def open(self, sources: Mapping[str, bytes | None]) -> None:
        """Start the workers and wait until all have loaded the filters.

        Args:
            sources: the text of each Python file of the filters, by its path.

        Raises:
            FiltersNotLoaded: one could not.
        """
        await self._load(sources, at_once=self._count)

    async def reload(self, sources: Mapping[str, bytes | None]) -> None:
        """Replace the workers by others that load these filters, once all of those have.

        Nothing waits for it: those that are there take jobs until then, and end after the ones that
        they have. For this while there are up to twice as many workers, and their memory. Where
        these are busy, the others load slowly.

        Args:
            sources: as for :meth:`open`.

        Raises:
            FiltersNotLoaded: one could not. Nothing has changed then.
        """
        share = _SHARE * cpu_quota()

        def pause(seconds: float) -> float:
            if share >= 1 or not (self._current and self._current.busy):
                return 0
            return seconds * (1 / share - 1)

        # One reload after another: never more than two generations, unless a job takes very long.
        if self._retiring:
            await asyncio.wait(self._retiring.values(), timeout=self._deadline)
        await self._load(sources, at_once=max(1, int(share)), pause=pause)

    async def _load(
        self,
        sources: Mapping[str, bytes | None],
        *,
        at_once: int,
        pause: Callable[[float], float] | None = None,
    ) -> None:
        encoded = {os.fsencode(path): text for path, text in sources.items()}
        self._generations += 1
        self._loading = generation = Generation(
            self._generations,
            msgspec.structs.replace(self._start, sources=encoded),
            count=self._count,
            start_timeout=self._start_timeout,
            make=self._make,
            on_change=self._on_change,
            metrics=self._metrics,
        )
        try:
            await generation.open(at_once=at_once, pause=pause)
        except FiltersNotLoaded:
            self._loading = None
            await generation.close(0)
            raise
        old, self._current, self._loading = self._current, generation, None
        if old:
            task = asyncio.get_running_loop().create_task(old.retire(self._deadline))
            self._retiring[old] = task
            task.add_done_callback(lambda _: self._retiring.pop(old))
        self._on_change()

    async def close(self, grace: float) -> None:
        """End the workers after the jobs that they have.

        Args:
            grace: seconds until those that have not ended are killed.
        """
        generations = [self._current, self._loading, *self._retiring]
        await asyncio.gather(*(one.close(grace) for one in generations if one))

    async def run(
        self,
        job: wire.Job,
        entries: Entries,
        *,
        first: bool = False,
        generation: int | None = None,
    ) -> Answer:
        """Return a worker's answer to a job.

        Args:
            job: the job.
            entries: its entries; they must not change until this returns.
            first: whether it goes before those that wait.
            generation: the only one whose filters may run it: it is a piece of what was cut for
                them. None is any.

        The results are held in the budget, for the caller to give back.

        Raises:
            WorkerDied: the worker ended while it ran this job. Jobs that waited behind it are given
                to others.
            Superseded: that generation has been replaced before it ran this job.
        """
        reply: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        assignment = Assignment(job, entries, reply, first, generation)
        if first:
            self._queue.appendleft(assignment)
        else:
            self._queue.append(assignment)
        self._dispatch()
        try:
            return await reply
        except asyncio.CancelledError:
            # The answer may have come in the same moment; a worker's death is nobody's affair then.
            if reply.done() and not reply.cancelled() and reply.exception() is None:
                answer, results = reply.result()
                if isinstance(answer, wire.Done):
                    self._budget.release_results(len(results))
            assignment.entries = b""  # it may stay in the queue for as long as there is no worker
            raise

    def _dispatch(self) -> None:
        # A piece of a chunk that is rescued is run whatever is held: the results of the pieces
        # before it are, and are given back only when all have been run.
        while self._queue and (self._queue[0].first or self._budget.takes_results):
            if not self._current:
                break
            if self._queue[0].generation not in {None, self._current.number}:
                superseded = self._queue.popleft()
                if not superseded.reply.done():
                    superseded.reply.set_exception(Superseded("its filters have been replaced"))
                continue
            worker = min(self._current.usable, key=lambda one: one.load, default=None)
            if worker is None or worker.load >= _JOBS_A_WORKER:
                break
            assignment = self._queue.popleft()
            if assignment.reply.done():  # nobody waits for it any more
                continue
            self._metrics.queue_wait_seconds.observe(time.monotonic() - assignment.enqueued)
            if taps := self._taps.ask(assignment.job.tag, assignment.job.count):
                assignment.job = msgspec.structs.replace(assignment.job, taps=taps)
            worker.submit(assignment)
        self._metrics.queue_chunks.set(len(self._queue))

    def _make(
        self, name: str, start: wire.Start, on_end: Callable[[Worker, str | None], None]
    ) -> Worker:
        return Worker(
            name,
            start,
            deadline=self._deadline,
            memory_limit=self._memory_limit,
            on_idle=self._dispatch,
            on_end=on_end,
            on_done=self._on_done,
            on_orphans=self._take_back,
        )

    def _on_change(self) -> None:
        self._metrics.workers.set(self.ready)
        self._dispatch()

    def _on_done(self, worker: Worker, reply: wire.Done, size: int, *, wanted: bool) -> None:
        if wanted:
            self._budget.take_results(size)
        if reply.tapped:
            self._taps.show(reply.tapped)
        self._metrics.worker_chunk_seconds.labels(worker.name).observe(reply.seconds)
        cpu = self._metrics.worker_cpu_seconds.labels(worker.name)
        cpu.inc(max(0.0, reply.cpu_seconds - worker.cpu_seconds))
        worker.cpu_seconds = reply.cpu_seconds
        self._metrics.worker_resident_bytes.labels(worker.name).set(reply.resident_bytes)

    def _take_back(self, assignments: list[Assignment]) -> None:
        self._queue.extendleft(reversed(assignments))
