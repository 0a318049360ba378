"""The connections to Fluentd's in_forward, where results go."""

from __future__ import annotations

import asyncio
import base64
import os
import random
import ssl
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, cast

from bridge.errors import BridgeError, ConnectionLost, DeliveryError, NotAcknowledged
from bridge.forward import Acked, ClientAuth, Ready, SendBytes, Sender, packed_forward
from bridge.logs import get_logger
from bridge.metrics import Metrics
from bridge.settings import DownstreamSettings

_log = get_logger(__name__)


@dataclass(slots=True, frozen=True)
class Part:
    """Results under one tag.

    Attributes:
        tag: the tag.
        entries: packed entries.
        count: how many events they hold.
    """

    tag: str
    entries: bytes | bytearray | memoryview
    count: int


class Connection(asyncio.Protocol):
    """One connection, with up to a window of chunks that are not acknowledged yet.

    Args:
        sender: the protocol's state.
        window: how many chunks may be unacknowledged.
    """

    def __init__(self, sender: Sender, window: int) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[str] = loop.create_future()
        self._sender = sender
        self._window = window
        self._unacknowledged: dict[bytes, asyncio.Future[None]] = {}
        self._transport: asyncio.Transport | None = None

    @property
    def room(self) -> int:
        """How many more chunks it takes."""
        if not self.ready.done() or self.lost.done():
            return 0
        return self._window - len(self._unacknowledged)

    def send(self, part: Part) -> asyncio.Future[None]:
        """Send results; the future is done when they have been acknowledged."""
        assert self._transport is not None
        chunk_id = base64.b64encode(os.urandom(16))
        self._transport.writelines(
            packed_forward(part.tag, part.entries, count=part.count, chunk_id=chunk_id)
        )
        future = asyncio.get_running_loop().create_future()
        self._unacknowledged[chunk_id] = future
        return future

    def abort(self, reason: str) -> None:
        """End the connection; what is not acknowledged gets :class:`ConnectionLost`."""
        if not self.lost.done():
            self.lost.set_result(reason)
            unacknowledged, self._unacknowledged = self._unacknowledged, {}
            for future in unacknowledged.values():
                if not future.done():
                    future.set_exception(ConnectionLost(reason))
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._take(self._sender.start())

    def data_received(self, data: bytes) -> None:
        """Asyncio's."""
        try:
            self._take(self._sender.receive(data))
        except BridgeError as error:
            self.abort(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio's."""
        self.abort(str(exc) if exc else "it closed the connection")

    def _take(self, events: list[SendBytes | Ready | Acked]) -> None:
        for event in events:
            match event:
                case SendBytes(data):
                    assert self._transport is not None
                    self._transport.write(data)
                case Ready():
                    self.ready.set_result(None)
                case Acked(chunk_id):
                    future = self._unacknowledged.pop(chunk_id, None)
                    if future is not None and not future.done():
                        future.set_result(None)


class Downstream:
    """The pool of connections to one address.

    Args:
        settings: address, authentication, timeouts.
        metrics: where to count.
    """

    def __init__(self, settings: DownstreamSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._connections: list[Connection] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        self._was_connected = False
        self.trouble: str | None = None
        self.address = f"{settings.host}:{settings.port}"
        self._tls = _tls_context(settings) if settings.tls else None

    @property
    def connected(self) -> int:
        """How many connections can be sent on."""
        return sum(one.ready.done() and not one.lost.done() for one in self._connections)

    @property
    def lost_since(self) -> str | None:
        """Why the connection was lost; None if there is one, or never was one yet.

        Fluentd starts after its sidecar.
        """
        return self.trouble if self._was_connected and not self.connected else None

    def open(self) -> None:
        """Start to connect."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._keep_connected()) for _ in range(self._settings.connections)
        ]

    async def close(self) -> None:
        """End all connections."""
        for task in self._tasks:
            task.cancel()
        for connection in list(self._connections):
            connection.abort("the sidecar ends")
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def deliver(self, part: Part) -> None:
        """Return when the results have been acknowledged, however often that needs a new attempt.

        The caller bounds the time.
        """
        began = time.monotonic()
        backoff = self._settings.retry_min
        while True:
            connection = await self._free_connection()
            acknowledged = connection.send(part)
            try:
                async with asyncio.timeout(self._settings.ack_timeout):
                    await acknowledged
            except TimeoutError:
                # Its later acknowledgement could not be told from that of the next attempt.
                self._abort(
                    connection,
                    NotAcknowledged(
                        f"it did not acknowledge a chunk within {self._settings.ack_timeout:g} s"
                    ),
                )
            except DeliveryError:
                pass
            else:
                self._metrics.delivery_seconds.observe(time.monotonic() - began)
                self._wake()
                return
            self._metrics.delivery_retries.inc()
            await asyncio.sleep(backoff * random.uniform(0.5, 1))  # noqa: S311 - jitter
            backoff = min(backoff * 2, self._settings.retry_max)

    def _abort(self, connection: Connection, error: DeliveryError) -> None:
        _log.warning("downstream connection given up", peer=self.address, reason=str(error))
        connection.abort(str(error))

    async def _free_connection(self) -> Connection:
        while True:
            best = max(self._connections, key=lambda one: one.room, default=None)
            if best is not None and best.room > 0:
                return best
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._wake()
                raise

    def _wake(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    async def _keep_connected(self) -> None:
        backoff = self._settings.retry_min
        while True:
            connection = Connection(Sender(self._auth()), self._settings.window)
            try:
                await self._connect(connection)
            except (OSError, TimeoutError, BridgeError) as error:
                self._report(str(error) or f"no answer within {self._settings.connect_timeout:g} s")
                connection.abort("it could not be connected to")
                await asyncio.sleep(backoff * random.uniform(0.5, 1))  # noqa: S311 - jitter
                backoff = min(backoff * 2, self._settings.retry_max)
                continue
            backoff = self._settings.retry_min
            if not self.connected:
                _log.info("downstream connected", peer=self.address)
            self.trouble = None
            self._was_connected = True
            self._connections.append(connection)
            self._metrics.downstream_connections.set(self.connected)
            for _ in range(self._settings.window):
                self._wake()
            try:
                reason = await asyncio.shield(connection.lost)
            finally:
                self._connections.remove(connection)
                self._metrics.downstream_connections.set(self.connected)
            self._report(reason)

    async def _connect(self, connection: Connection) -> None:
        settings = self._settings
        async with asyncio.timeout(settings.connect_timeout):
            await asyncio.get_running_loop().create_connection(
                lambda: connection,
                settings.host,
                settings.port,
                ssl=self._tls,
                server_hostname=settings.host if self._tls and settings.tls_verify else None,
            )
            either: list[asyncio.Future[Any]] = [connection.ready, connection.lost]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if connection.lost.done():
            raise ConnectionLost(connection.lost.result())

    def _report(self, trouble: str) -> None:
        if trouble != self.trouble:  # one line a change, not one an attempt
            _log.warning("downstream not connected", peer=self.address, reason=trouble)
            self.trouble = trouble

    def _auth(self) -> ClientAuth | None:
        settings = self._settings
        if settings.shared_key is None:
            return None
        return ClientAuth(
            shared_key=settings.shared_key.get_secret_value(),
            hostname=settings.hostname,
            username=settings.username or "",
            password=settings.password.get_secret_value() if settings.password else "",
        )


def _tls_context(settings: DownstreamSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(
        cafile=str(settings.tls_ca_file) if settings.tls_ca_file else None
    )
    if not settings.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.tls_cert_file:
        context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
    return context
