"""The listener: accepts connections, TLS included, and drains them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from ssl import SSLContext
from typing import Any, cast

from bridge.budget import Budget
from bridge.forward import ServerAuth
from bridge.logs import get_logger
from bridge.metrics import Metrics
from bridge.server.connection import Accept, Connection, Limits, peer_of

_SWEEP = 1.0  # seconds between looks for messages that take too long
_TLS_SHUTDOWN = 1.0  # seconds to wait for the peer's own goodbye

_log = get_logger(__name__)


class _Datagrams(asyncio.DatagramProtocol):
    """Answers UDP heartbeats: one zero byte for one (out_forward.rb, send_heartbeat)."""

    _transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:  # noqa: ARG002
        self._transport.sendto(b"\0", addr)


class _Handshake(asyncio.Protocol):
    """Lets TLS begin; asyncio's own listener does not say whose handshake failed, and why."""

    def __init__(self, server: Server, tls: SSLContext) -> None:
        self._server = server
        self._tls = tls
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        plain = cast("asyncio.Transport", transport)
        plain.pause_reading()
        self._task = asyncio.get_running_loop().create_task(self._upgrade(plain))

    async def _upgrade(self, plain: asyncio.Transport) -> None:
        connection = Connection(self._server)
        peer = peer_of(plain)
        try:
            transport = await asyncio.get_running_loop().start_tls(
                plain,
                connection,
                self._tls,
                server_side=True,
                ssl_handshake_timeout=self._server.limits.receive_timeout,
                ssl_shutdown_timeout=_TLS_SHUTDOWN,
            )
        except Exception as error:  # noqa: BLE001 - the peer's doing, in whatever way it fails
            reason = f"no TLS: {str(error) or type(error).__name__}"
            self._server.metrics.connections_closed.labels("protocol error").inc()
            _log.warning(
                "connection closed", peer=peer, kind="protocol error", reason=reason, tag=None
            )
            plain.abort()
        else:
            if transport is not None:
                connection.connection_made(transport)


class Server:
    """Accepts connections; a callable takes each chunk and returns when to acknowledge it.

    Args:
        accept: takes a chunk whose bytes are held in the budget, and gives them back.
        limits: what a peer may do.
        budget: bytes in flight.
        metrics: where to count.
        auth: shared key and users, None for no handshake.
        tls: the server's context, None for plain TCP.

    Attributes:
        port: where it listens.
    """

    def __init__(
        self,
        accept: Accept,
        *,
        limits: Limits,
        budget: Budget,
        metrics: Metrics,
        auth: ServerAuth | None = None,
        tls: SSLContext | None = None,
    ) -> None:
        self.accept = accept
        self.limits = limits
        self.budget = budget
        self.metrics = metrics
        self.auth = auth
        self.port = 0
        self._tls = tls
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._server: asyncio.Server | None = None
        self._heartbeats: asyncio.BaseTransport | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def open(self, host: str, port: int) -> None:
        """Listen.

        Args:
            host: the address.
            port: the TCP port, and the UDP port of heartbeats; 0 is any free one.

        Raises:
            OSError: it is taken, or not this machine's.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, host, port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        try:
            self._heartbeats, _ = await loop.create_datagram_endpoint(
                _Datagrams, local_addr=(host, self.port)
            )
        except OSError as error:
            _log.warning("UDP heartbeats are not answered", port=self.port, reason=str(error))
        self._sweeper = loop.create_task(self._sweep())

    async def drain(self, grace: float) -> bool:
        """Accept no more, answer what was received, return whether that was done in time.

        Args:
            grace: seconds.
        """
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._empty.wait()
        abandoned: list[asyncio.Task[Any]] = []
        for connection in list(self._connections):
            abandoned += connection.abandon()
        if abandoned:
            await asyncio.wait(abandoned)
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._heartbeats is not None:
            self._heartbeats.close()
        return not abandoned

    def add(self, connection: Connection) -> None:
        """Note a connection."""
        self._connections.add(connection)
        self._empty.clear()
        self.metrics.connections.set(len(self._connections))

    def discard(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()
        self.metrics.connections.set(len(self._connections))

    def _protocol(self) -> asyncio.BaseProtocol:
        return Connection(self) if self._tls is None else _Handshake(self, self._tls)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            now = time.monotonic()
            for connection in list(self._connections):
                connection.check_time(now)
