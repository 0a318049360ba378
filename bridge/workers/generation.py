"""Workers that have loaded the same filters, and come and go together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Protocol

from bridge.errors import BridgeError
from bridge.logs import get_logger
from bridge.metrics import Metrics
from bridge.workers import wire
from bridge.workers.worker import Worker

_RESTART_DELAY = (0.1, 5.0)  # seconds, first and longest, while workers end before they are ready
_SLICE = 0.02  # seconds that a worker loads before it may have to pause for those that serve

_log = get_logger(__name__)


class FiltersNotLoaded(BridgeError):
    """The workers cannot load the filters.

    Args:
        mistakes: what is wrong, one text a mistake.
    """

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class Make(Protocol):
    """Makes a worker that is not started yet."""

    def __call__(
        self, name: str, start: wire.Start, on_end: Callable[[Worker, str | None], None], /
    ) -> Worker:
        """Return it."""


class Generation:
    """Some workers, all with the same filters; one that dies is replaced, with these filters.

    Args:
        number: which it is, from 1; those that could not load are counted too.
        start: what its workers load.
        count: how many there are.
        start_timeout: seconds that a worker may take to load the filters.
        make: makes a worker.
        on_change: called when one can take jobs, or no more.
        metrics: where to count.

    Attributes:
        filters: what its workers have loaded.
    """

    def __init__(
        self,
        number: int,
        start: wire.Start,
        *,
        count: int,
        start_timeout: float,
        make: Make,
        on_change: Callable[[], None],
        metrics: Metrics,
    ) -> None:
        self.number = number
        self.filters: list[wire.Filter] = []
        self._start = start
        self._count = count
        self._start_timeout = start_timeout
        self._make = make
        self._on_change = on_change
        self._metrics = metrics
        self._workers: dict[str, Worker] = {}
        self._opened = False
        self._closing = False
        self._early_end: str | None = None
        self._restart_delay = _RESTART_DELAY[0]
        self._restarts: set[asyncio.Task[None]] = set()

    @property
    def usable(self) -> Iterator[Worker]:
        """Its workers that can be given jobs."""
        return (worker for worker in self._workers.values() if worker.usable)

    @property
    def busy(self) -> bool:
        """Whether any of its workers has a job."""
        return any(worker.load for worker in self._workers.values())

    async def open(self, *, at_once: int, pause: Callable[[float], float] | None = None) -> None:
        """Start the workers and wait until all have loaded the filters.

        Args:
            at_once: how many load at the same time. If not all do, one goes before the others:
                what it cannot load they need not try.
            pause: returns for how many seconds a worker that has loaded for so many is to stand
                still.

        Raises:
            FiltersNotLoaded: one could not.
        """
        names = [str(index) for index in range(self._count)]
        if at_once < self._count:
            self._check(await self._try(names.pop(0), pause))
        room = asyncio.Semaphore(at_once)

        async def launch(name: str) -> list[str]:
            async with room:
                return await self._try(name, pause)

        for mistakes in await asyncio.gather(*map(launch, names)):
            self._check(mistakes)
        if self._early_end:
            self._check([f"a worker ended after it had loaded the filters: {self._early_end}"])
        self._opened = True

    async def retire(self, patience: float) -> None:
        """Let the workers end after the jobs that they have, and wait until they have ended.

        Args:
            patience: seconds that one may take to end after its last job.
        """
        workers = self._close()
        ending: set[asyncio.Task[None]] = {
            asyncio.get_running_loop().create_task(worker.wait_ended()) for worker in workers
        }
        while ending:
            idle = [worker for worker in workers if not worker.load]
            _, ending = await asyncio.wait(ending, timeout=patience)
            for worker in idle if ending else ():
                worker.kill("did not end when asked to")

    async def close(self, grace: float) -> None:
        """End the workers after the jobs that they have.

        Args:
            grace: seconds until those that have not ended are killed.
        """
        workers = self._close()
        try:
            async with asyncio.timeout(grace):
                await asyncio.gather(*(worker.wait_ended() for worker in workers))
        except TimeoutError:
            for worker in workers:
                worker.kill("did not end when asked to")
            await asyncio.gather(*(worker.wait_ended() for worker in workers))

    def _close(self) -> list[Worker]:
        self._closing = True
        for task in list(self._restarts):
            task.cancel()
        workers = list(self._workers.values())
        for worker in workers:
            worker.close()
            if not worker.loaded:  # it has no job, and may load for ever
                worker.kill("is not wanted any more")
        return workers

    def _check(self, mistakes: list[str]) -> None:
        if mistakes:
            raise FiltersNotLoaded(mistakes)

    async def _try(self, name: str, pause: Callable[[float], float] | None) -> list[str]:
        try:
            return await self._launch(name, pause)
        except OSError as error:
            return [f"workers cannot be started: {error}"]

    async def _launch(self, name: str, pause: Callable[[float], float] | None = None) -> list[str]:
        """Start a worker; return what kept it from loading the filters, if anything did."""
        worker = self._make(name, self._start, self._on_end)
        self._workers[name] = worker
        try:
            await worker.launch()
        except OSError:
            del self._workers[name]
            raise
        try:
            answer = await self._loaded(worker, pause)
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
        self._on_change()
        return []

    async def _loaded(
        self, worker: Worker, pause: Callable[[float], float] | None
    ) -> wire.Ready | wire.Unloadable:
        """Return a worker's answer; the time that it was made to stand still does not count."""
        if pause is None:
            async with asyncio.timeout(self._start_timeout):
                return await asyncio.shield(worker.ready)
        took = 0.0
        while took < self._start_timeout:
            done, _ = await asyncio.wait([worker.ready], timeout=_SLICE)
            if done:
                return worker.ready.result()
            took += _SLICE
            if seconds := pause(_SLICE):
                with worker.stopped():
                    await asyncio.sleep(seconds)
        raise TimeoutError

    def _on_end(self, worker: Worker, reason: str | None) -> None:
        if self._workers.get(worker.name) is worker:
            del self._workers[worker.name]
        self._on_change()
        if self._closing or not self._opened:
            if worker.loaded:
                self._early_end = reason
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
