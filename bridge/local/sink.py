"""A Forward server in a thread: what stands for Fluentd's in_forward where there is no Fluentd."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Self

import uvloop

from bridge.budget import Budget
from bridge.forward import Chunk, ServerAuth
from bridge.metrics import Metrics
from bridge.server import Limits, Server

_LIMIT = 256 << 20


class Sink:
    """Accepts chunks and acknowledges each when a callable has taken it.

    Args:
        take: gets each chunk, in the sink's thread; what it raises closes the connection with no
            acknowledgement.
        port: the port on 127.0.0.1; 0 is any free one.
        auth: shared key and users.

    Attributes:
        port: where it listens.
    """

    def __init__(
        self, take: Callable[[Chunk], None], *, port: int = 0, auth: ServerAuth | None = None
    ) -> None:
        self._take = take
        self._auth = auth
        self.port = port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open = asyncio.Event()
        self._ended: asyncio.Event | None = None
        self._started = threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="sink", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._ended is not None
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    def hold(self) -> None:
        """Take, and so acknowledge, nothing until :meth:`release`."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._open.clear)

    def release(self) -> None:
        """Take again."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._open.set)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._open.set()
        metrics = Metrics()
        budget = Budget(_LIMIT, metrics.in_flight_bytes)

        async def accept(chunk: Chunk) -> None:
            try:
                await self._open.wait()
                self._take(chunk)
            finally:
                budget.release(len(chunk.entries))

        server = Server(
            accept,
            limits=Limits(max_message_bytes=_LIMIT, receive_timeout=60),
            budget=budget,
            metrics=metrics,
            auth=self._auth,
        )
        try:
            await server.open("127.0.0.1", self.port)
        except OSError as error:
            self._error = error
            self._started.set()
            return
        self.port = server.port
        self._started.set()
        await self._ended.wait()
        await server.drain(grace=1)
