"""One upstream connection: chunks in, acknowledgements out, and no more read than there is room."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from bridge.errors import DeliveryError, ProtocolError
from bridge.forward import Announced, Chunk, Receiver, SendBytes, ack_message
from bridge.logs import get_logger

if TYPE_CHECKING:
    from bridge.server.server import Server

Accept = Callable[[Chunk], Awaitable[None]]

_LINGER = struct.Struct("ii")
_RESET = _LINGER.pack(1, 0)  # close() resets the connection
_END = _LINGER.pack(0, 0)  # close() sends what is written, then an end of file
_LAST_WORDS = 5.0  # seconds for the peer to read what was written before the connection was closed
_UNACCOUNTED = 64 << 10  # bytes of a message of unannounced size that need no reservation

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a peer may do.

    Attributes:
        max_message_bytes: the longest message.
        receive_timeout: seconds that a message, a handshake, or the peer's reading of
            acknowledgements may take.
    """

    max_message_bytes: int
    receive_timeout: float


class Connection(asyncio.BufferedProtocol):
    """One upstream connection.

    Args:
        server: what it belongs to.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._receiver = Receiver(
            max_message_bytes=server.limits.max_message_bytes, auth=server.auth
        )
        self._transport: asyncio.Transport
        self._chunks: set[asyncio.Task[Any]] = set()
        self._reserved: int | None = None  # bytes of the announced message that is arriving
        self._growing = 0  # bytes held for the unannounced message that is arriving
        self._waiting_for: int | None = None  # bytes of the message that must wait for room
        self._closed: str | None = None
        self._stopping = False
        self._half_closed = False
        self._due: float | None = None  # when the message that is arriving must be there
        self._read_by: float | None = None  # when the peer must have read its acknowledgements
        self._abort_at = 0.0
        self.peer = "?"

    # Reading

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take asyncio's call."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self.peer = _peer_of(transport)
        self._server.add(self)
        # Unless it is ended in good order the peer gets a reset, also by a SIGKILL of this process.
        # On Ruby 3.3 or newer Fluentd does not understand an end of file in place of an ack (nil,
        # where ack_handler.rb:131 expects a string) and waits out ack_response_timeout; after a
        # reset it sends the chunk again at once (ack_handler.rb:115).
        self._set_linger(_RESET)
        if greeting := self._receiver.start():
            self._transport.write(greeting)
            self._start_clock()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Return where asyncio puts what it reads."""
        return self._receiver.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Take asyncio's call."""
        self._receiver.buffer_updated(nbytes)
        self._advance()

    def _advance(self) -> None:
        while self._reads:
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
        if self._closed is None:
            self._hold_unannounced()
            if self._reserved is not None or self._receiver.pending_bytes:
                self._start_clock()
            else:
                self._due = None

    @property
    def _reads(self) -> bool:
        return self._closed is None and self._waiting_for is None and not self._stopping

    def _reserve(self, size: int) -> None:
        if self._server.budget.reserve(size, self._granted):
            self._reserved = size
        else:
            # Not reading is the backpressure: upstream's buffer is on disk, ours is not.
            self._waiting_for = size
            self._set_reading()

    def _granted(self) -> None:
        assert self._waiting_for is not None
        size, self._waiting_for = self._waiting_for, None
        if self._closed is not None or not size:
            self._server.budget.release(size)
        else:
            self._reserved = size
        if self._closed is None:
            self._set_reading()
            # Not from within release(): the chunk that gave the room is not done with its bytes.
            asyncio.get_running_loop().call_soon(self._advance)

    def _hold_unannounced(self) -> None:
        """Hold what a message in Forward or Message mode has grown to; wait if that is too much."""
        announced = self._reserved is not None or self._waiting_for
        pending = 0 if announced else self._receiver.pending_bytes
        size = 2 * pending if pending > _UNACCOUNTED else 0  # its buffer doubles
        budget = self._server.budget
        if size > self._growing:
            if self._growing:
                budget.grow(size - self._growing)
            else:
                budget.take(size)
            self._growing = size
        if size and budget.full and self._waiting_for is None:
            # The clock goes on: all room may be held by messages like this one.
            self._reserve(0)

    def _give_back(self) -> None:
        if self._growing:
            self._server.budget.release(self._growing)
            self._growing = 0

    def _start(self, chunk: Chunk) -> None:
        size = len(chunk.entries)
        budget = self._server.budget
        if self._reserved is not None:
            assert self._reserved == size
            self._reserved = None
        else:
            budget.take(size)
        self._give_back()
        self._due = None
        task = asyncio.get_running_loop().create_task(self._finish(chunk))
        self._chunks.add(task)
        task.add_done_callback(self._answered)
        if budget.full and self._waiting_for is None:  # it was not announced: the next one waits
            self._reserve(0)

    def _set_reading(self) -> None:
        if self._waiting_for is None and self._read_by is None and not self._stopping:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

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
        if self._chunks or self._closed is not None:
            return
        if self._stopping:
            self._close("drain", "the sidecar ends")
        elif self._half_closed:
            self._set_linger(_END)
            self._transport.close()

    def pause_writing(self) -> None:
        """Read no more from a peer that does not read its acknowledgements."""
        self._read_by = time.monotonic() + self._server.limits.receive_timeout
        self._set_reading()

    def resume_writing(self) -> None:
        """Take asyncio's call."""
        self._read_by = None
        self._set_reading()

    # Ending

    def stop(self) -> None:
        """Read no more; close when what was read has been answered."""
        self._stopping = True
        if self._closed is not None:
            self._transport.abort()
            return
        self._set_reading()
        if not self._chunks:
            self._close("drain", "the sidecar ends")
        elif self._half_closed:  # as good as gone: Fluentd never ends one half alone
            self.abandon()

    def abandon(self) -> list[asyncio.Task[Any]]:
        """Give up what is not answered: upstream keeps it."""
        self._close("handed back" if self._chunks else "drain", "the sidecar ends")
        self._transport.abort()
        for task in self._chunks:
            task.cancel()
        return list(self._chunks)

    def check_time(self, now: float) -> None:
        """Close if the message under way, or the peer's reading, has taken too long."""
        seconds = f"{self._server.limits.receive_timeout:g} s"
        if self._closed is not None:
            if now > self._abort_at:
                self._transport.abort()
        elif self._read_by is not None and now > self._read_by:
            self._close("timeout", f"the peer did not read its acknowledgements for {seconds}")
            self._transport.abort()
        elif self._due is not None and now > self._due:
            reason = f"a message did not arrive whole within {seconds}"
            self._close("timeout", reason, tag=self._receiver.tag)

    def eof_received(self) -> bool:
        """Take asyncio's call; return whether to keep the connection for acknowledgements."""
        if self._receiver.eof():
            reason = "the peer ended in the middle of a message"
            self._close("protocol error", reason, tag=self._receiver.tag)
        self._half_closed = bool(self._chunks)
        if not self._half_closed:
            self._set_linger(_END)
        return self._half_closed

    def connection_lost(self, exc: Exception | None) -> None:
        """Take asyncio's call."""
        if self._closed is None:
            if exc is not None and (self._receiver.pending_bytes or self._reserved is not None):
                reason = f"the connection broke in the middle of a message: {exc}"
                self._note("protocol error", reason, self._receiver.tag)
            else:
                # Heartbeats open and close a connection each second: not worth a line.
                self._note("eof", str(exc or "the peer closed the connection"), None, quiet=True)
        if self._waiting_for is not None:
            self._server.budget.forget(self._granted)
        if self._reserved is not None:
            self._server.budget.release(self._reserved)
            self._reserved = None
        self._give_back()
        for task in self._chunks:  # nobody is there to get what they wait for
            task.cancel()
        self._server.discard(self)

    def _start_clock(self) -> None:
        # Who waits for room of ours does not run out of time, unless it holds much of that room.
        if self._waiting_for is not None and not self._growing:
            self._due = None
        elif self._due is None:
            self._due = time.monotonic() + self._server.limits.receive_timeout

    def _close(self, kind: str, reason: str, *, tag: str | None = None) -> None:
        if self._closed is not None:
            return
        self._note(kind, reason, tag, quiet=kind == "drain")
        owed = self._chunks - {_current_task()}
        if kind == "handed back":
            self._server.metrics.handed_back_chunks.inc()
        elif not owed:
            self._set_linger(_END)
        self._abort_at = time.monotonic() + _LAST_WORDS
        self._transport.close()

    def _note(self, kind: str, reason: str, tag: str | None, *, quiet: bool = False) -> None:
        self._closed = kind
        self._due = None
        self._server.metrics.connections_closed.labels(kind).inc()
        write = _log.debug if quiet else _log.warning
        write("connection closed", peer=self.peer, kind=kind, reason=reason, tag=tag)

    def _set_linger(self, linger: bytes) -> None:
        sock = self._transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            with contextlib.suppress(OSError, ValueError):  # the peer may be gone
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


def _peer_of(transport: asyncio.BaseTransport) -> str:
    """Return the peer's address as log lines show it."""
    name = transport.get_extra_info("peername")
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name or "unix socket")


def _current_task() -> asyncio.Task[Any] | None:
    return asyncio.current_task(asyncio.get_running_loop())
