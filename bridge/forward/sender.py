"""The client's side of a Forward connection: bytes in, acknowledgements out.

Source: Forward protocol v1; Fluentd's plugin/out_forward.rb and out_forward/handshake_protocol.rb.
"""

from __future__ import annotations

from typing import Any

import msgpack

from bridge.errors import AuthenticationError, ProtocolError
from bridge.forward.auth import ClientAuth
from bridge.forward.messages import Acked, Helo, Ping, Pong, Ready, SendBytes

_MAX_MESSAGE = 64 << 10  # a server's messages are short


class Sender:
    """The state of one connection, client role. It does no input or output.

    The caller takes events from :meth:`start`, and from :meth:`receive` for all that it receives.
    It sends each :class:`SendBytes`; after :class:`Ready` it sends chunks, made by
    :func:`~bridge.forward.messages.packed_forward`, as many at once as it likes. A chunk whose
    :class:`Acked` has not come is not delivered, and is to be kept and sent again.

    Args:
        auth: key and user for a server that asks for them, None if it does not.

    Attributes:
        ready: whether chunks may be sent.
    """

    def __init__(self, auth: ClientAuth | None = None) -> None:
        self.ready = False
        self._auth = auth
        self._helo: Helo | None = None
        self._ping: Ping | None = None
        self._unpacker = msgpack.Unpacker(
            raw=True,
            strict_map_key=False,
            max_buffer_size=_MAX_MESSAGE,
            read_size=4096,
            # Without these a few nested headers would have it allocate what they promise.
            max_array_len=16,
            max_map_len=16,
        )

    def start(self) -> list[SendBytes | Ready | Acked]:
        """Return what is to be done when the connection is open."""
        if self._auth is not None:
            return []  # the server speaks first
        self.ready = True
        return [Ready()]

    def receive(self, data: bytes) -> list[SendBytes | Ready | Acked]:
        """Return what is to be done about bytes received.

        Raises:
            AuthenticationError: the server refuses, or does not know the key; says why.
            ProtocolError: the server does not speak the protocol.
        """
        view = memoryview(data)
        events: list[SendBytes | Ready | Acked] = []
        while view:
            piece, view = view[: _MAX_MESSAGE // 2], view[_MAX_MESSAGE // 2 :]
            try:
                self._unpacker.feed(piece)
                messages = list(self._unpacker)
            except (msgpack.UnpackException, ValueError, TypeError, OverflowError) as error:
                reason = str(error) or type(error).__name__
                raise ProtocolError(
                    f"the server sent what is not the Forward protocol: {reason}"
                ) from None
            for message in messages:
                events += self._take(message)
        return events

    def _take(self, message: Any) -> list[SendBytes | Ready | Acked]:
        if self.ready:
            match message:
                case {b"ack": bytes(chunk_id)}:
                    return [Acked(chunk_id)]
                case [b"HELO", *_]:
                    raise AuthenticationError("the server asks for a shared key: set it")
            raise ProtocolError(
                "the server sent what is no acknowledgement: is this the port of a Forward server?"
            )
        assert self._auth is not None
        if self._helo is None:
            self._helo = Helo.decode(message)
            self._ping = self._auth.ping(self._helo)
            return [SendBytes(self._ping.encode())]
        assert self._ping is not None
        self._auth.check(self._helo, self._ping, Pong.decode(message))
        self.ready = True
        return [Ready()]
