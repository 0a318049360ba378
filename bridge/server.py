"""The Forward server: sockets upstream, acknowledgements back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ssl import SSLContext
from typing import cast

from bridge.delivery.budget import Budget
from bridge.errors import DeliveryError, ProtocolError
from bridge.forward import Announced, Chunk, Receiver, SendBytes, ServerAuth, ack_message
from bridge.logs import get_logger
from bridge.metrics import Metrics

Accept = Callable[[Chunk], Awaitable[None]]
_LINGER = struct.Struct("ii")
_RESET = _LINGER.pack(1, 0)  # close() resets the connection
_END = _LINGER.pack(0, 0)  # close() sends what is written, then an end of file
_SWEEP = 1.0  # seconds between looks for messages that take too long

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a peer may do.

    Attributes:
        max_message_bytes: the longest message.
        receive_timeout: seconds that a message, or a handshake, may take to arrive.
    """

    max_message_bytes: int
    receive_timeout: float


class _Datagrams(asyncio.DatagramProtocol):
    """Answers UDP heartbeats: one zero byte for one (out_forward.rb, send_heartbeat)."""

    _transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:  # noqa: ARG002
        self._transport.sendto(b"\0", addr)


class _Connection(asyncio.BufferedProtocol):
    """One upstream connection."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._receiver = Receiver(
            max_message_bytes=server.limits.max_message_bytes, auth=server.auth
        )
        self._transport: asyncio.Transport
        self._chunks: set[asyncio.Task[None]] = set()
        self._reserved: int | None = None  # bytes of the message that is arriving
        self._waiting_for: int | None = None  # bytes of the message that must wait for room
        self._closed: str | None = None
        self._stopping = False
        self._half_closed = False
        self._due: float | None = None
        self.peer = "?"

    # Reading

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername")
        self.peer = (
            f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name or "unix socket")
        )
        self._server.add(self)
        # Unless it is ended in good order the peer gets a reset, also by a SIGKILL of this process.
        # On Ruby 3.3 or newer Fluentd does not understand an end of file in place of an ack (nil,
        # where ack_handler.rb:131 expects a string) and waits out ack_response_timeout; after a
        # reset it sends the chunk again at once (ack_handler.rb:115).
        self._set_linger(_RESET)
        if greeting := self._receiver.start():
            transport.write(greeting)
            self._due = time.monotonic() + self._server.limits.receive_timeout

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return self._receiver.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        self._receiver.buffer_updated(nbytes)
        self._advance()

    def _advance(self) -> None:
        while self._closed is None and self._waiting_for is None and not self._stopping:
            try:
                event = self._receiver.next_event()
            except ProtocolError as error:
                self._close("protocol error", str(error), tag=self._receiver.tag)
                return
            match event:
                case None:
                    break
                case SendBytes(data):
                    self._transport.write(data)
                case Announced(size):
                    self._reserve(size)
                case Chunk():
                    self._start(event)
        pending = self._receiver.pending_bytes or self._reserved is not None
        if not pending:
            self._due = None
        elif self._due is None:
            self._due = time.monotonic() + self._server.limits.receive_timeout

    def _reserve(self, size: int) -> None:
        if self._server.budget.reserve(size, self._granted):
            self._reserved = size
        else:
            # Not reading is the backpressure: upstream's buffer is on disk, ours is not.
            self._waiting_for = size
            self._due = None
            self._transport.pause_reading()

    def _granted(self) -> None:
        assert self._waiting_for is not None
        size, self._waiting_for = self._waiting_for, None
        if self._closed is not None or not size:
            self._server.budget.release(size)
        else:
            self._reserved = size
        if self._closed is None and not self._stopping:
            self._transport.resume_reading()
            # Not from within release(): the chunk that gave the room is not done with its own
            # bytes.
            asyncio.get_running_loop().call_soon(self._advance)

    def _start(self, chunk: Chunk) -> None:
        size = len(chunk.entries)
        budget = self._server.budget
        if self._reserved is not None:
            assert self._reserved == size
            self._reserved = None
        else:
            budget.take(size)
        self._due = None
        task = asyncio.get_running_loop().create_task(self._finish(chunk))
        self._chunks.add(task)
        task.add_done_callback(self._answered)
        if budget.held > budget.limit:  # it did not announce itself: the next one waits
            self._reserve(0)

    # Acknowledging

    async def _finish(self, chunk: Chunk) -> None:
        try:
            await self._server.accept(chunk)
        except ProtocolError as error:
            self._close("protocol error", str(error), tag=chunk.tag)
        except DeliveryError as error:
            # Without its acknowledgement upstream keeps the chunk; with the connection closed it
            # need not wait for it.
            self._close("handed back", str(error), tag=chunk.tag)
        except Exception:  # noqa: BLE001 - whatever it is, upstream must keep the chunk
            _log.exception("chunk failed by a fault of the sidecar", peer=self.peer, tag=chunk.tag)
            self._close("handed back", "an internal error, see the log line before", tag=chunk.tag)
        else:
            if chunk.ack is not None and self._closed is None:
                # One write an ack: Fluentd wants it whole in one read (ack_handler.rb:115).
                self._transport.write(ack_message(chunk.ack))

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._chunks.discard(task)
        if self._chunks:
            return
        if self._stopping:
            self._close("drain", "the sidecar ends")
        elif self._half_closed and self._closed is None:
            self._set_linger(_END)
            self._transport.close()

    # Ending

    def stop(self) -> None:
        """Read no more; close when what was read has been answered."""
        self._stopping = True
        if self._closed is None:
            self._transport.pause_reading()
        if not self._chunks:
            self._close("drain", "the sidecar ends")

    def abandon(self) -> list[asyncio.Task[None]]:
        """Give up what is not answered: upstream keeps it."""
        for task in self._chunks:
            task.cancel()
        self._close("drain", "the sidecar ends")
        return list(self._chunks)

    def check_time(self, now: float) -> None:
        """Close if the message under way has taken too long."""
        if self._due is not None and now > self._due:
            self._close(
                "timeout",
                f"a message did not arrive whole within {self._server.limits.receive_timeout:g} s",
                tag=self._receiver.tag,
            )

    def eof_received(self) -> bool:
        if self._receiver.eof():
            self._close(
                "protocol error",
                "the peer ended in the middle of a message",
                tag=self._receiver.tag,
            )
        # Half-closed: the peer may still wait for acknowledgements.
        self._half_closed = bool(self._chunks)
        if not self._half_closed:
            self._set_linger(_END)
        return self._half_closed

    def connection_lost(self, exc: Exception | None) -> None:
        if self._closed is None:
            if exc is not None and (self._receiver.pending_bytes or self._reserved is not None):
                self._note(
                    "protocol error",
                    f"the connection broke in the middle of a message: {exc}",
                    self._receiver.tag,
                )
            else:
                # Heartbeats open and close a connection each second: not worth a line.
                self._note("eof", str(exc or "the peer closed the connection"), None, quiet=True)
        if self._waiting_for is not None:
            self._server.budget.forget(self._granted)
        if self._reserved is not None:
            self._server.budget.release(self._reserved)
            self._reserved = None
        self._server.discard(self)

    def _close(self, kind: str, reason: str, *, tag: str | None = None) -> None:
        if self._closed is None:
            self._note(kind, reason, tag, quiet=kind == "drain")
            answered = kind != "handed back" and not (kind == "drain" and self._chunks)
            if answered:
                self._set_linger(_END)
            self._transport.close()

    def _set_linger(self, linger: bytes) -> None:
        sock = self._transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):  # the peer may be gone
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def _note(self, kind: str, reason: str, tag: str | None, *, quiet: bool = False) -> None:
        self._closed = kind
        self._due = None
        self._server.metrics.connections_closed.labels(kind).inc()
        write = _log.debug if quiet else _log.warning
        write("connection closed", peer=self.peer, kind=kind, reason=reason, tag=tag)


class Server:
    """Accepts connections; a callable takes each chunk and returns when to acknowledge it.

    Args:
        accept: takes a chunk whose bytes are held in the budget, and gives them back.
        limits: what a peer may do.
        budget: bytes in flight.
        metrics: where to count.
        auth: shared key and users, None for no handshake.
        tls: the server's context, None for plain TCP.
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
        self._tls = tls
        self._connections: set[_Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._server: asyncio.Server | None = None
        self._heartbeats: asyncio.BaseTransport | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self.port = 0

    async def open(self, host: str, port: int) -> None:
        """Listen.

        Args:
            host: the address.
            port: the TCP port, and the UDP port of heartbeats; 0 is any free one, told by
            :attr:`port`.

        Raises:
            OSError: it is taken, or not this machine's.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), host, port, ssl=self._tls, backlog=1024
        )
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
        abandoned = [task for one in list(self._connections) for task in one.abandon()]
        if abandoned:
            await asyncio.wait(abandoned)
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._heartbeats is not None:
            self._heartbeats.close()
        return not abandoned

    def add(self, connection: _Connection) -> None:
        """Note a connection."""
        self._connections.add(connection)
        self._empty.clear()
        self.metrics.connections.set(len(self._connections))

    def discard(self, connection: _Connection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()
        self.metrics.connections.set(len(self._connections))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            now = time.monotonic()
            for connection in list(self._connections):
                connection.check_time(now)
