"""Runs a caller's batch on the workers: in pieces where that is faster, and all or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence

from grpc import StatusCode

from bridge.budget import Budget
from bridge.logs import get_logger
from bridge.metrics import Metrics
from bridge.rpc.cutting import Piece, Uncut, cut
from bridge.rpc.refusal import Refusal
from bridge.workers import wire
from bridge.workers.counts import count_run
from bridge.workers.pool import Answer, Pool, Superseded
from bridge.workers.rescue import Rescue, Unrunnable

Result = tuple[wire.Done, memoryview]

_log = get_logger(__name__)


class Batches:
    """Takes batches through the workers.

    Args:
        pool: the workers.
        rescue: runs a piece on them, whatever its events do to them.
        budget: holds the results.
        draining: set when the sidecar ends.
        metrics: where to count.
    """

    def __init__(
        self,
        pool: Pool,
        rescue: Rescue,
        *,
        budget: Budget,
        draining: asyncio.Event,
        metrics: Metrics,
    ) -> None:
        self._pool = pool
        self._rescue = rescue
        self._budget = budget
        self._draining = draining
        self._metrics = metrics
        self._filters: Sequence[wire.Filter] = ()
        self._uncut = Uncut(())

    async def run(
        self,
        tag: bytes,
        entries: bytes,
        count: int | None,
        remaining: Callable[[], float | None],
    ) -> list[Result]:
        """Return what the workers made of a batch, in the batch's order.

        The results are held in the budget, for the caller to
        give back.

        Args:
            tag: the events' tag.
            entries: packed entries.
            count: how many they are said to be.
            remaining: returns the seconds until the caller gives up, None if it does not.

        Raises:
            Refusal: they are no events, or a filter wants them to come again and the caller will
                not wait for that.
        """
        text = tag.decode("utf-8", "surrogateescape")
        whole = Piece(memoryview(entries), count)
        pieces = self._cut(text, whole)
        asked = False
        while True:
            began = time.monotonic()
            try:
                answers = await self._run_pieces(text, pieces)
            except Superseded:
                # The new filters may want it whole, and none of it has been handed on.
                pieces = self._cut(text, whole)
                continue
            done = [(one, body) for one, body in answers if isinstance(one, wire.Done)]
            for reply, _ in done:
                count_run(self._metrics, reply)
            if len(done) == len(answers):
                return done
            self._give_back(done)
            if refused := next((one for one, _ in answers if isinstance(one, wire.Refused)), None):
                if len(pieces) == 1:
                    raise Refusal(
                        StatusCode.INVALID_ARGUMENT, f"tag {_shown(tag)}: {refused.reason}"
                    )
                pieces = [whole]  # the byte that the reason names is then the batch's
                continue
            again = max(
                (one for one, _ in answers if isinstance(one, wire.Again)),
                key=lambda one: one.delay,
            )
            write = _log.debug if asked else _log.info
            write("batch is to come again", tag=_shown(tag), reason=again.reason, delay=again.delay)
            asked = True
            self._metrics.retried_chunks.labels("retry").inc()
            await self._wait(tag, again, time.monotonic() - began, remaining())
            pieces = self._cut(text, whole)

    def _cut(self, tag: str, whole: Piece) -> list[Piece]:
        if self._filters is not self._pool.filters:
            self._filters = self._pool.filters
            self._uncut = Uncut(self._filters)
        idle = self._pool.idle
        if idle < 2 or tag in self._uncut or not self._budget.takes_results:
            return [whole]
        return cut(whole.entries, whole.count, idle)

    async def _run_pieces(self, tag: str, pieces: list[Piece]) -> list[Answer]:
        if len(pieces) == 1:
            return await self._run_piece(tag, pieces[0])
        loop = asyncio.get_running_loop()
        # Pieces were cut just now, for these filters and no others.
        generation = self._pool.generation
        # First, all of them: one that waited for room might wait for what the others hold.
        tasks = [
            loop.create_task(self._run_piece(tag, piece, first=True, generation=generation))
            for piece in pieces
        ]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled() and task.exception() is None:
                    self._give_back(
                        (one, body) for one, body in task.result() if isinstance(one, wire.Done)
                    )
            raise
        return [answer for task in tasks for answer in task.result()]

    async def _run_piece(
        self, tag: str, piece: Piece, *, first: bool = False, generation: int | None = None
    ) -> list[Answer]:
        try:
            return await self._rescue.run(
                tag, piece.entries, piece.count, None, first=first, generation=generation
            )
        except Unrunnable as error:
            raise Refusal(StatusCode.UNAVAILABLE, str(error)) from error

    async def _wait(
        self, tag: bytes, again: wire.Again, took: float, remaining: float | None
    ) -> None:
        """Wait for as long as a filter asked, if the caller then has time for another run."""
        if remaining is None or remaining > again.delay + took:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(again.delay):
                    await self._draining.wait()
            if not self._draining.is_set():
                return
        raise Refusal(StatusCode.UNAVAILABLE, f"tag {_shown(tag)}: {again.reason}", again.delay)

    def _give_back(self, done: Iterable[Result]) -> None:
        for _, body in done:
            self._budget.release_results(len(body))


def _shown(tag: bytes) -> str:
    return tag.decode("utf-8", "backslashreplace")
