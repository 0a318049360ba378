"""The chain of acknowledgements: a chunk is accepted when all its results have been."""

from __future__ import annotations

import asyncio

from bridge.delivery.budget import Budget
from bridge.delivery.downstream import Downstream, Part
from bridge.delivery.window import Window
from bridge.errors import DeliveryError, NotAcknowledged, NotAnEvent
from bridge.forward import Chunk
from bridge.logs import get_logger
from bridge.metrics import Metrics
from bridge.workers import wire
from bridge.workers.rescue import Answer, Rescue, Unrunnable

_log = get_logger(__name__)


class Chain:
    """Takes chunks from upstream through the workers to downstream.

    Args:
        rescue: runs a chunk on the workers.
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

    async def accept(self, chunk: Chunk) -> None:
        """Return when the chunk may be acknowledged.

        Args:
            chunk: a chunk whose bytes are reserved in the budget.

        Raises:
            DeliveryError: its results were not delivered in time: it must not be acknowledged.
            ProtocolError: it holds no events.
        """
        key = self._window.key(chunk)
        if key is None:
            await self._process(chunk)  # nobody waits, so nobody's patience ends
            return
        earlier = self._window.in_flight(key)
        if earlier is not None or self._window.was_acknowledged(key):
            self._budget.release(len(chunk.entries))
            self._metrics.duplicate_chunks.inc()
            if earlier is not None:
                await asyncio.shield(earlier)
            return
        self._window.begin(key)
        try:
            async with asyncio.timeout(self._patience):
                await self._process(chunk)
        except TimeoutError:
            error = NotAcknowledged(
                f"the results could not be delivered within {self._patience:g} s"
                f" ({self._downstream.trouble or 'downstream does not acknowledge'})"
            )
            self._window.give_up(key, error)
            self._metrics.handed_back_chunks.inc()
            raise error from None
        except asyncio.CancelledError:
            self._window.give_up(key, DeliveryError("the sidecar ends"))
            raise
        except BaseException as error:
            self._window.give_up(key, error)
            raise
        self._window.acknowledge(key)

    async def _process(self, chunk: Chunk) -> None:
        size = len(chunk.entries)
        self._metrics.received_chunks.inc()
        self._metrics.received_bytes.inc(size)
        try:
            answers = await self._run(chunk)
            chunk.entries = b""  # the connection holds the chunk until it is acknowledged
            results = sum(len(body) for _, body in answers)
            self._budget.take(results)
        finally:
            self._budget.release(size)
        try:
            replies = [reply for reply, _ in answers if isinstance(reply, wire.Done)]
            for reply in replies:
                self._count_run(reply)
            parts = _parts(answers)
            del answers
            if len(parts) == 1:
                await self._downstream.deliver(parts[0])
            elif parts:
                async with asyncio.TaskGroup() as group:
                    for part in parts:
                        group.create_task(self._downstream.deliver(part))
            for reply in replies:
                self._count_delivered(reply)
        finally:
            self._budget.release(results)

    async def _run(self, chunk: Chunk) -> list[Answer]:
        while True:
            try:
                answers = await self._rescue.run(
                    chunk.tag, chunk.entries, chunk.count, chunk.compressed
                )
            except Unrunnable as error:
                raise DeliveryError(str(error)) from error
            match answers[0][0]:
                case wire.Again(delay, reason):
                    _log.info("chunk is to come again", tag=chunk.tag, reason=reason)
                    self._metrics.retried_chunks.labels("retry").inc()
                    await asyncio.sleep(delay)
                case wire.Refused(reason):
                    raise NotAnEvent(reason)
                case _:
                    return answers

    def _count_run(self, reply: wire.Done) -> None:
        for name, seconds, events, dropped, failed in reply.filters:
            self._metrics.filter_seconds.labels(name).observe(seconds)
            self._metrics.filter_events.labels(name).inc(events)
            self._metrics.filter_dropped.labels(name).inc(dropped)
            self._metrics.filter_errors.labels(name).inc(failed)
        self._metrics.add_instruments(reply.instruments)

    def _count_delivered(self, reply: wire.Done) -> None:
        # All four together and only now, so that at any moment events in are events out, dropped
        # and dead-lettered, but for what filters made more of.
        self._metrics.received_events.inc(reply.received)
        self._metrics.dropped_events.inc(reply.dropped)
        self._metrics.error_events.inc(reply.errors)
        for _, count, _, is_error in reply.streams:
            if not is_error:
                self._metrics.emitted_events.inc(count)


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
