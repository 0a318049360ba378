"""The server's side of a Forward connection: bytes in, chunks out.

Source: Forward protocol v1; Fluentd's plugin/in_forward.rb.
"""

from __future__ import annotations

from collections.abc import Callable

from bridge.errors import ProtocolError
from bridge.events import EventTime
from bridge.forward.auth import ServerAuth
from bridge.forward.buffer import InputBuffer
from bridge.forward.parser import Event, Parser


class Receiver:
    """The state of one connection, server role. It does no input or output.

    The caller sends what :meth:`start` returns, writes what it receives into :meth:`get_buffer`,
    says so by :meth:`buffer_updated`, and then takes events from :meth:`next_event` until that is
    None. It sends each :class:`~bridge.forward.messages.SendBytes`. It sends
    :func:`~bridge.forward.messages.ack_message` of a chunk, in one write, when the chunk is safe
    elsewhere; it closes the connection on :class:`~bridge.errors.ProtocolError`. To make a sender
    wait it neither reads nor takes events.

    Args:
        max_message_bytes: the most bytes of a message; in packed modes, of its entries as they
            are sent, compressed or not.
        auth: shared key and users, None for no handshake.
        clock: the time for events that have none.
    """

    def __init__(
        self,
        *,
        max_message_bytes: int,
        auth: ServerAuth | None = None,
        clock: Callable[[], EventTime] = EventTime.now,
    ) -> None:
        self._helo = auth.helo() if auth else None
        self._buffer = InputBuffer()
        self._parser = Parser(self._buffer, max_message_bytes, clock)
        # The generator holds the parser and not this object, which so is freed with its
        # connection and does not wait for the cycle collector.
        self._events = self._parser.run(auth, self._helo)
        self._error: ProtocolError | None = None

    @property
    def tag(self) -> str | None:
        """The tag of the message that is arriving, None before it is known."""
        return self._parser.tag

    @property
    def pending_bytes(self) -> int:
        """Bytes received of a message that is not complete, once there are no more events."""
        return self._buffer.pending

    def start(self) -> bytes:
        """Return what to send when the connection is open, in one write; it may be nothing."""
        # Less than 512 bytes: Fluentd reads once (out_forward.rb:637-642).
        return self._helo.encode() if self._helo else b""

    def get_buffer(self) -> memoryview:
        """Return where the next bytes are to be written; it is never empty.

        The entries of a packed message are written to where they stay, but for those that were
        received together with its head.
        """
        return self._buffer.space()

    def buffer_updated(self, count: int) -> None:
        """Say that bytes were written.

        Args:
            count: how many, from the start of what :meth:`get_buffer` returned.
        """
        if self._error is None:
            self._buffer.written(count)

    def receive(self, data: bytes | bytearray | memoryview) -> None:
        """Copy bytes in, for callers that have them already."""
        view = memoryview(data)
        while view:
            space = self.get_buffer()
            count = min(len(space), len(view))
            space[:count] = view[:count]
            self.buffer_updated(count)
            view = view[count:]

    def next_event(self) -> Event | None:
        """Return the next event, None if it takes more bytes.

        Raises:
            ProtocolError: what was received is not the protocol, is too large, or comes from
                somebody who may not send. The error stays, and what still comes is dropped.
        """
        if self._error is not None:
            raise self._error
        try:
            return next(self._events)
        except ProtocolError as error:
            self._error = error
            raise

    def eof(self) -> bool:
        """Return whether the peer, having ended, ended within a message."""
        return self._error is None and self.pending_bytes > 0
