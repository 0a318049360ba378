"""The pool of workers: a queue of jobs, a process a core, a new one for each that dies."""

from __future__ import annotations

import asyncio
import time
from collections import deque

import msgspec

from bridge.budget import Budget
from bridge.errors import BridgeError
from bridge.logs import get_logger
from bridge.metrics import Metrics
from bridge.tap import Taps
from bridge.workers import wire
from bridge.workers.worker import Assignment, Entries, Worker

# Each worker has the next job in its socket while it runs one, so that it never waits for the
# transport.
_JOBS_A_WORKER = 2
_RESTART_DELAY = (0.1, 5.0)  # seconds, first and longest, while workers end before they are ready

Answer = tuple[wire.Reply, memoryview]

_log = get_logger(__name__)


class FiltersNotLoaded(BridgeError):
    """The workers cannot load the filters.

    Args:
        mistakes: what is wrong, one text a mistake.
    """

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class Pool:
    """Workers, and the jobs that wait for one.

    Args:
        start: what the workers load.
        count: how many workers to run.
        deadline: seconds that a job may take.
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
        start_timeout: float,
        budget: Budget,
        metrics: Metrics,
        taps: Taps | None = None,
    ) -> None:
        self._start = start
        self._count = count
        self._deadline = deadline
        self._start_timeout = start_timeout
        self._metrics = metrics
        self._taps = taps or Taps()
        self._budget = budget
        budget.on_room = self._dispatch
        self._workers: dict[str, Worker] = {}
        self._queue: deque[Assignment] = deque()
        self._closing = False
        self._opened = False
        self._restart_delay = _RESTART_DELAY[0]
        self._restarts: set[asyncio.Task[None]] = set()
        self.filters: list[wire.Filter] = []

    @property
    def ready(self) -> int:
        """How many workers can take jobs."""
        return sum(worker.usable for worker in self._workers.values())

    @property
    def idle(self) -> int:
        """How many workers have nothing to do and nothing waiting for them."""
        if self._queue:
            return 0
        return sum(one.usable and not one.load for one in self._workers.values())

    async def open(self) -> None:
        """Start the workers and wait until all have loaded the filters.

        Raises:
            FiltersNotLoaded: one could not.
        """
        launches = (self._launch(str(index)) for index in range(self._count))
        try:
            starts = await asyncio.gather(*launches)
        except OSError as error:
            raise FiltersNotLoaded([f"workers cannot be started: {error}"]) from error
        for mistakes in starts:
            if mistakes:
                raise FiltersNotLoaded(mistakes)
        self._opened = True

    async def close(self, grace: float) -> None:
        """End the workers after the jobs that they have.

        Args:
            grace: seconds until those that have not ended are killed.
        """
        self._closing = True
        for task in list(self._restarts):
            task.cancel()
        workers = list(self._workers.values())
        for worker in workers:
            worker.close()
        try:
            async with asyncio.timeout(grace):
                await asyncio.gather(*(worker.wait_ended() for worker in workers))
        except TimeoutError:
            for worker in workers:
                worker.kill("did not end when asked to")
            await asyncio.gather(*(worker.wait_ended() for worker in workers))

    async def run(self, job: wire.Job, entries: Entries, *, first: bool = False) -> Answer:
        """Return a worker's answer to a job.

        Args:
            job: the job.
            entries: its entries; they must not change until this returns.
            first: whether it goes before those that wait.

        The results are held in the budget, for the caller to give back.

        Raises:
            WorkerDied: the worker ended while it ran this job. Jobs that waited behind it are given
                to others.
        """
        reply: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        assignment = Assignment(job, entries, reply, first)
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
            worker = min(
                (one for one in self._workers.values() if one.usable),
                key=lambda one: one.load,
                default=None,
            )
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

    async def _launch(self, name: str) -> list[str]:
        """Start a worker; return what kept it from loading the filters, if anything did."""
        worker = Worker(
            name,
            self._start,
            deadline=self._deadline,
            on_idle=self._dispatch,
            on_end=self._on_end,
            on_done=self._on_done,
            on_orphans=self._take_back,
        )
        self._workers[name] = worker
        try:
            await worker.launch()
        except OSError:
            del self._workers[name]
            raise
        try:
            async with asyncio.timeout(self._start_timeout):
                answer = await asyncio.shield(worker.ready)
        except TimeoutError:
            reason = f"the filters were not loaded within {self._start_timeout:g} s"
            worker.kill(reason)
            return [
                f"{reason}: make what they do at import shorter, or raise workers.start_timeout"
            ]
        if isinstance(answer, wire.Unloadable):
            return answer.mistakes
        self.filters = answer.filters
        self._restart_delay = _RESTART_DELAY[0]
        self._metrics.workers.set(self.ready)
        self._dispatch()
        return []

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

    def _on_end(self, worker: Worker, reason: str | None) -> None:
        if self._workers.get(worker.name) is worker:
            del self._workers[worker.name]
        self._metrics.workers.set(self.ready)
        if self._closing or not self._opened:
            return
        kind = "deadline" if worker.overran else "killed"
        self._metrics.worker_restarts.labels(kind).inc()
        _log.error(
            "worker ended, another is started",
            worker=worker.name,
            pid=worker.pid,
            reason=reason,
            traceback=worker.traceback,
        )
        task = asyncio.get_running_loop().create_task(self._restart(worker))
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)
        self._dispatch()

    async def _restart(self, old: Worker) -> None:
        failed = not old.loaded
        while True:
            if failed:
                await asyncio.sleep(self._restart_delay)
                self._restart_delay = min(self._restart_delay * 2, _RESTART_DELAY[1])
            try:
                mistakes = await self._launch(old.name)
            except OSError as error:  # no processes, file descriptors or memory left
                _log.error("worker cannot be started", worker=old.name, reason=str(error))
                failed = True
                continue
            for mistake in mistakes:  # it ends, and so comes here again
                _log.error("worker cannot load the filters", worker=old.name, reason=mistake)
            return
