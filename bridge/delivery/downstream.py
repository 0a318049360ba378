"""The connections to Fluentd's in_forward, where results go."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections import deque
from typing import Any

from bridge.delivery.connection import Connection, Part
from bridge.errors import ConnectionLost, DeliveryError, SettingsError
from bridge.forward import ClientAuth, Sender
from bridge.logs import get_logger
from bridge.metrics import Metrics
from bridge.settings import DownstreamSettings

_TLS_SHUTDOWN = 1.0  # seconds to wait for the peer's own goodbye

_log = get_logger(__name__)


class Downstream:
    """The pool of connections to one address.

    Args:
        settings: address, authentication, timeouts.
        metrics: where to count.

    Attributes:
        address: where to.
        trouble: why there is no connection, None if there is one.
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
    def loss(self) -> str | None:
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
        """Return when the results have been acknowledged, however many attempts that needs."""
        began = time.monotonic()
        backoff = self._settings.retry_min
        while True:
            connection = await self._free_connection()
            try:
                await connection.send(part)
            except DeliveryError:
                self._metrics.delivery_retries.inc()
            else:
                self._metrics.delivery_seconds.observe(time.monotonic() - began)
                return
            await asyncio.sleep(_jittered(backoff))
            backoff = min(backoff * 2, self._settings.retry_max)

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
            connection = Connection(
                Sender(self._auth()),
                window=self._settings.window,
                ack_timeout=self._settings.ack_timeout,
                on_room=self._wake,
            )
            try:
                await self._connect(connection)
            except Exception as error:  # noqa: BLE001 - a host name can fail in its own ways
                self._report(str(error) or f"no answer within {self._settings.connect_timeout:g} s")
                connection.abort("it could not be connected to")
            else:
                reason = await self._use(connection)
                self._report(reason)
                if connection.acknowledged:
                    backoff = self._settings.retry_min
            # Also after a loss: who accepts and closes is not asked again without a pause.
            await asyncio.sleep(_jittered(backoff))
            backoff = min(backoff * 2, self._settings.retry_max)

    async def _use(self, connection: Connection) -> str:
        """Return why a connection ended."""
        if not self.connected:
            _log.info("downstream connected", peer=self.address)
        self.trouble = None
        self._was_connected = True
        self._connections.append(connection)
        self._metrics.downstream_connections.set(self.connected)
        for _ in range(self._settings.window):
            self._wake()
        try:
            return await asyncio.shield(connection.lost)
        finally:
            self._connections.remove(connection)
            self._metrics.downstream_connections.set(self.connected)

    async def _connect(self, connection: Connection) -> None:
        settings = self._settings
        async with asyncio.timeout(settings.connect_timeout):
            await asyncio.get_running_loop().create_connection(
                lambda: connection,
                settings.host,
                settings.port,
                ssl=self._tls,
                server_hostname=settings.host if self._tls else None,
                ssl_shutdown_timeout=_TLS_SHUTDOWN if self._tls else None,
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


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.5, 1)  # noqa: S311 - no secret


def _tls_context(settings: DownstreamSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(
            cafile=str(settings.tls_ca_file) if settings.tls_ca_file else None
        )
        if settings.tls_cert_file:
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
    except OSError as error:
        raise SettingsError(
            f"downstream.tls_ca_file ({settings.tls_ca_file}), downstream.tls_cert_file"
            f" ({settings.tls_cert_file}) or downstream.tls_key_file ({settings.tls_key_file})"
            f" cannot be used: {error}; give certificates and the key that belongs to them in PEM"
        ) from error
    if not settings.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
