"""Runs a chunk to its end whatever its events do to the workers.

A chunk whose worker dies is run again, carefully: the worker tells before each event which one
comes. The second time it is cut, around the event that it had come to, or in halves where it could
not tell (a filter over all events of a chunk). Pieces go on to be cut until the event that kills
workers stands alone, and that event goes to the error stream.
"""

from __future__ import annotations

import msgspec

from bridge.budget import Budget
from bridge.errors import BridgeError
from bridge.logs import get_logger
from bridge.metrics import Metrics
from bridge.workers import wire
from bridge.workers.pool import Answer, Pool, Superseded
from bridge.workers.worker import Entries, WorkerDied

# An event that is run with nobody to blame ends a worker each time: not all of many, in turn.
_MOST_ATTEMPTS = 6

_log = get_logger(__name__)


class Unrunnable(BridgeError):
    """A chunk ends each worker before its events can be counted."""


class Rescue:
    """Runs chunks on a pool.

    Args:
        pool: the workers.
        budget: holds the results of what is run.
        metrics: where to count what is run again.
    """

    def __init__(self, pool: Pool, budget: Budget, metrics: Metrics) -> None:
        self._pool = pool
        self._budget = budget
        self._metrics = metrics

    async def run(
        self,
        tag: str,
        entries: Entries,
        count: int | None,
        compressed: str | None,
        *,
        first: bool = False,
        generation: int | None = None,
    ) -> list[Answer]:
        """Return the workers' answers, which together cover the chunk in its order.

        An answer that is not :class:`wire.Done` stands alone and is about the whole chunk. The
        results are held in the budget, for the caller to give back. There are no answers if the
        chunk holds no events and ends workers all the same.

        Args:
            tag: the chunk's tag.
            entries: its entries.
            count: how many they are said to be.
            compressed: how they are compressed, if they are.
            first: whether they go before what waits, and do not wait for room: they are a piece of
                what holds results already.
            generation: the only one of the pool's whose filters may run it; None is any, but one
                for all of its pieces.

        Raises:
            Superseded: that generation has been replaced before all of it was run.
            Unrunnable: it ends workers before its events can be counted.
        """
        job = wire.Job(tag.encode("utf-8", "surrogateescape"), count, compressed)
        try:
            return [await self._pool.run(job, entries, first=first, generation=generation)]
        except WorkerDied as died:
            self._count(died, tag)
        while True:
            answers: list[Answer] = []
            pinned = self._pool.generation if generation is None else generation
            try:
                refusal = await self._run_pieces(job, entries, tag, answers, pinned)
            except Superseded:
                # Other filters may cope with the events, and half a chunk is not for them.
                self._give_back(answers)
                if generation is not None:
                    raise
                continue
            except BaseException:
                self._give_back(answers)
                raise
            if refusal is not None:
                self._give_back(answers)
                return [refusal]
            return answers

    async def _run_pieces(
        self, job: wire.Job, entries: Entries, tag: str, answers: list[Answer], generation: int
    ) -> Answer | None:
        """Add the answers to the pieces; return one that is about the whole chunk, if one is."""
        ranges: list[tuple[int, int | None, int]] = [(0, None, 2)]  # start, stop, attempts: a stack
        while ranges:
            start, stop, attempts = ranges.pop()
            piece = msgspec.structs.replace(
                job, start=start, stop=stop, attempts=attempts, careful=True
            )
            try:
                answer = await self._pool.run(piece, entries, first=True, generation=generation)
            except WorkerDied as died:
                self._count(died, tag)
                ranges.extend(reversed(self._cut(piece, died)))
                alone = died.total is not None and _length(piece, died.total) == 1
                if alone and not _spared(piece, died):
                    answers.append(await self._reject(piece, entries, died, generation))
                continue
            if not isinstance(answer[0], wire.Done):
                return answer
            answers.append(answer)
        return None

    def _give_back(self, answers: list[Answer]) -> None:
        for _, results in answers:
            self._budget.release_results(len(results))

    def _cut(self, piece: wire.Job, died: WorkerDied) -> list[tuple[int, int | None, int]]:
        """Return the pieces to run instead, none where the piece is one event.

        A worker that died with nobody to blame has been replaced by one that holds less.
        """
        if _spared(piece, died):
            return [(piece.start, piece.stop, piece.attempts + 1)]
        if died.total is None:
            raise Unrunnable(
                f"tag {_tag(piece)}: workers end before the events of this chunk can be counted"
                f" ({died.reason}); give the workers more memory or send smaller chunks"
            )
        start, stop = piece.start, died.total if piece.stop is None else piece.stop
        attempts = piece.attempts + 1
        if stop - start == 1:
            return []
        index = died.index
        if index is None or not start <= index < stop:
            middle = (start + stop) // 2
            pieces = [(start, middle), (middle, stop)]
        else:
            pieces = [(start, index), (index, index + 1), (index + 1, stop)]
        # Events that the worker did not come to have not been run once more.
        return [(a, b, attempts) for a, b in pieces if a < b]

    async def _reject(
        self, piece: wire.Job, entries: Entries, died: WorkerDied, generation: int
    ) -> Answer:
        error_class = "DeadlineExceeded" if died.deadline else "WorkerKilled"
        verdict = msgspec.structs.replace(
            piece,
            careful=False,
            verdict=(error_class, f"the worker that ran this event {died.reason}"),
        )
        _log.error(
            "event ends workers, it goes to the error stream",
            tag=_tag(piece),
            index=piece.start,
            attempts=piece.attempts,
            reason=died.reason,
        )
        while True:
            try:
                return await self._pool.run(verdict, entries, first=True, generation=generation)
            except WorkerDied as other:  # the filters have not seen the event: it is not to blame
                self._count(other, _tag(piece))

    def _count(self, died: WorkerDied, tag: str) -> None:
        kind = "deadline" if died.deadline else "worker killed"
        self._metrics.retried_chunks.labels(kind).inc()
        _log.warning("chunk is run again", tag=tag, reason=died.reason, index=died.index)


def _spared(piece: wire.Job, died: WorkerDied) -> bool:
    return died.blameless and piece.attempts < _MOST_ATTEMPTS


def _tag(piece: wire.Job) -> str:
    return piece.tag.decode("utf-8", "backslashreplace")


def _length(piece: wire.Job, total: int) -> int:
    return (total if piece.stop is None else piece.stop) - piece.start
