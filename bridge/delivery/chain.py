"""The chain of acknowledgements: a chunk is accepted when all its results have been."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from bridge.budget import Budget
from bridge.delivery.connection import Part
from bridge.delivery.downstream import Downstream
from bridge.delivery.window import Key, Window
from bridge.errors import DeliveryError, NotAcknowledged, NotAnEvent
from bridge.forward import Chunk
from bridge.logs import get_logger
from bridge.metrics import Metrics
from bridge.workers import wire
from bridge.workers.counts import count_delivered, count_run
from bridge.workers.pool import Answer
from bridge.workers.rescue import Rescue, Unrunnable

_log = get_logger(__name__)


@dataclass(slots=True)
class _Work:
    """A chunk that is worked on, and how many connections wait for its outcome."""

    task: asyncio.Task[None]
    waiters: int = 0
    timer: asyncio.TimerHandle | None = None

    def give_up_later(self, seconds: float) -> None:
        self.forget()
        self.timer = asyncio.get_running_loop().call_later(seconds, self.give_up_if_unwanted)

    def forget(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def give_up_if_unwanted(self) -> None:
        if not self.waiters:
            self.task.cancel()


class Chain:
    """Takes chunks from upstream through the workers to downstream.

    Args:
        rescue: runs a chunk on the workers, and takes its results into the budget.
        downstream: delivers results.
        window: knows the recent chunks.
        budget: bounds the bytes in flight. A chunk's own are reserved by who hands it in, and given
            back here.
        patience: seconds that upstream waits for an acknowledgement.
        metrics: where to count.
    """

    def __init__(
        self,
        rescue: Rescue,
        downstream: Downstream,
        *,
        window: Window,
        budget: Budget,
        patience: float,
        metrics: Metrics,
    ) -> None:
        self._rescue = rescue
        self._downstream = downstream
        self._window = window
        self._budget = budget
        self._patience = patience
        self._metrics = metrics
        self._tasks: set[asyncio.Task[None]] = set()
        self._work: dict[Key, _Work] = {}
        self._draining = False

    async def accept(self, chunk: Chunk) -> None:
        """Return when the chunk may be acknowledged.

        Args:
            chunk: a chunk whose bytes are reserved in the budget.

        Raises:
            DeliveryError: its results were not delivered in time: it must not be acknowledged.
                Work on it goes on, and when it comes again it gets the outcome of that.
            ProtocolError: it holds no events.
        """
        key = self._window.key(chunk)
        if key is None:
            await asyncio.shield(self._start(self._process(chunk)))
            return  # nobody waits for an acknowledgement, so nobody's patience ends
        outcome = self._window.in_flight(key)
        if outcome is not None or self._window.was_acknowledged(key):
            self._budget.release(len(chunk.entries))
            self._metrics.duplicate_chunks.inc()
            if outcome is None:
                return
        else:
            outcome = self._window.begin(key)
            self._work[key] = _Work(self._start(self._process_known(chunk, key)))
        work = self._work[key]
        work.waiters += 1
        try:
            async with asyncio.timeout(self._patience):
                await asyncio.shield(outcome)
        except TimeoutError:
            raise NotAcknowledged(
                f"the results could not be delivered within {self._patience:g} s"
                f" ({self._downstream.trouble or 'downstream does not acknowledge'})"
            ) from None
        finally:
            work.waiters -= 1
            if self._draining:
                work.give_up_if_unwanted()
            elif not work.waiters and not outcome.done():
                # Its sender may come back for it, but not after longer than that.
                work.give_up_later(self._patience)

    def drain(self) -> None:
        """Give up what nobody waits for any more.

        Its sender sends it again, to another process, which will not know that it has been
        delivered. Before that it is worth finishing: the sender may come back to this one.
        """
        self._draining = True
        for work in self._work.values():
            work.give_up_if_unwanted()

    async def finish(self, grace: float) -> bool:
        """Return whether the rest, which is nobody's but ours, was delivered in time.

        Args:
            grace: seconds.
        """
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(grace, 0))
        return not self._tasks

    async def close(self) -> None:
        """Give up all chunks that are still worked on."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # was raised to its sender, whose connection may be gone

    async def _process_known(self, chunk: Chunk, key: Key) -> None:
        try:
            await self._process(chunk)
        except asyncio.CancelledError:
            self._window.give_up(key, DeliveryError("the sidecar ends"))
            raise
        except Exception as error:  # noqa: BLE001 - raised to whoever waits for the chunk
            self._window.give_up(key, error)
        else:
            self._window.acknowledge(key)
        finally:
            self._work.pop(key).forget()

    async def _process(self, chunk: Chunk) -> None:
        size = len(chunk.entries)
        self._metrics.received_chunks.inc()
        self._metrics.received_bytes.inc(size)
        try:
            answers = await self._run(chunk)
            chunk.entries = b""  # the connection holds the chunk until it is acknowledged
        finally:
            self._budget.release(size)
        held = [len(body) for _, body in answers]
        try:
            replies = [reply for reply, _ in answers if isinstance(reply, wire.Done)]
            for reply in replies:
                count_run(self._metrics, reply)
            parts = _parts(answers)
            del answers
            if len(parts) == 1:
                await self._downstream.deliver(parts[0])
            elif parts:
                async with asyncio.TaskGroup() as group:
                    for part in parts:
                        group.create_task(self._downstream.deliver(part))
            for reply in replies:
                count_delivered(self._metrics, reply)
        finally:
            for results in held:
                self._budget.release_results(results)

    async def _run(self, chunk: Chunk) -> list[Answer]:
        asked = False
        while True:
            try:
                answers = await self._rescue.run(
                    chunk.tag, chunk.entries, chunk.count, chunk.compressed
                )
            except Unrunnable as error:
                raise DeliveryError(str(error)) from error
            match answers[0][0] if answers else None:
                case wire.Again(delay, reason):
                    write = _log.debug if asked else _log.info
                    write("chunk is to come again", tag=chunk.tag, reason=reason)
                    asked = True
                    self._metrics.retried_chunks.labels("retry").inc()
                    await asyncio.sleep(delay)
                case wire.Refused(reason):
                    raise NotAnEvent(reason)
                case _:
                    return answers


def _parts(answers: list[Answer]) -> list[Part]:
    """Return the results by tag, each tag's in the chunk's order."""
    streams: dict[str, list[Part]] = {}
    for reply, body in answers:
        assert isinstance(reply, wire.Done)
        position = 0
        for name, count, length, _ in reply.streams:
            tag = name.decode("utf-8", "surrogateescape")
            part = Part(tag, body[position : position + length], count)
            streams.setdefault(tag, []).append(part)
            position += length
    return [
        # Several pieces only where events killed workers: elsewhere nothing is copied.
        pieces[0]
        if len(pieces) == 1
        else Part(
            tag,
            b"".join(piece.entries for piece in pieces),
            sum(piece.count for piece in pieces),
        )
        for tag, pieces in streams.items()
    ]
