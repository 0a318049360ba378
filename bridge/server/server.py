"""The listener: accepts connections, TLS included, and drains them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from ssl import SSLContext
from typing import Any

from bridge.budget import Budget
from bridge.forward import ServerAuth
from bridge.logs import get_logger
from bridge.metrics import Metrics
from bridge.server.connection import Accept, Connection, Limits

_BACKLOG = 1024
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
        self._accepting: asyncio.Task[None] | None = None
        self._handshakes: set[asyncio.Task[None]] = set()
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
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self.port = listener.getsockname()[1]
        if self._tls is None:
            self._server = await loop.create_server(
                lambda: Connection(self), sock=listener, backlog=_BACKLOG
            )
        else:
            self._accepting = loop.create_task(self._accept_tls(listener, self._tls))
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
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait([self._accepting])
        for handshake in self._handshakes:
            handshake.cancel()
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

    async def _accept_tls(self, listener: socket.socket, tls: SSLContext) -> None:
        """Accept here: asyncio's own listener does not say whose handshake failed, and why."""
        loop = asyncio.get_running_loop()
        with listener:
            listener.setblocking(False)
            while True:
                try:
                    accepted, address = await loop.sock_accept(listener)
                except OSError as error:  # no file descriptors left, or the peer is gone already
                    _log.warning("connection not accepted", reason=str(error))
                    await asyncio.sleep(_SWEEP)
                    continue
                task = loop.create_task(self._begin_tls(accepted, address, tls))
                self._handshakes.add(task)
                task.add_done_callback(self._handshakes.discard)

    async def _begin_tls(self, accepted: socket.socket, address: Any, tls: SSLContext) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: Connection(self),
                accepted,
                ssl=tls,
                ssl_handshake_timeout=self.limits.receive_timeout,
                ssl_shutdown_timeout=_TLS_SHUTDOWN,
            )
        except (OSError, TimeoutError) as error:
            self.metrics.connections_closed.labels("protocol error").inc()
            _log.warning(
                "connection closed",
                peer=f"{address[0]}:{address[1]}",
                kind="protocol error",
                reason=f"no TLS: {str(error) or type(error).__name__}",
                tag=None,
            )
            accepted.close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            now = time.monotonic()
            for connection in list(self._connections):
                connection.check_time(now)
