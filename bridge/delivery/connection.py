"""One connection to Fluentd's in_forward: results out, acknowledgements in."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from bridge.errors import BridgeError, ConnectionLost
from bridge.forward import Acked, Ready, SendBytes, Sender, packed_forward


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
        ack_timeout: seconds that an acknowledgement may take.
        on_room: called when another chunk may be sent.
    """

    def __init__(
        self, sender: Sender, *, window: int, ack_timeout: float, on_room: Callable[[], None]
    ) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[str] = loop.create_future()
        self.acknowledged = False
        self._sender = sender
        self._window = window
        self._ack_timeout = ack_timeout
        self._on_room = on_room
        # In the order of sending; a chunk stays here whoever has stopped to wait for it, because
        # only its acknowledgement, or the connection's end, makes room.
        self._unacknowledged: dict[bytes, tuple[float, asyncio.Future[None]]] = {}
        self._timer: asyncio.TimerHandle | None = None
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
        self._unacknowledged[chunk_id] = (time.monotonic(), future)
        if self._timer is None:
            self._look_later(self._ack_timeout)
        return future

    def abort(self, reason: str) -> None:
        """End the connection; what is not acknowledged gets :class:`ConnectionLost`."""
        if not self.lost.done():
            self.lost.set_result(reason)
            if self._timer is not None:
                self._timer.cancel()
            unacknowledged, self._unacknowledged = self._unacknowledged, {}
            for _, future in unacknowledged.values():
                if not future.done():
                    future.set_exception(ConnectionLost(reason))
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take asyncio's call."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._take(self._sender.start())

    def data_received(self, data: bytes) -> None:
        """Take asyncio's call."""
        try:
            self._take(self._sender.receive(data))
        except BridgeError as error:
            self.abort(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        """Take asyncio's call."""
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
                    _, future = self._unacknowledged.pop(chunk_id, (0, None))
                    if future is None:
                        continue
                    self.acknowledged = True
                    if not future.done():
                        future.set_result(None)
                    self._on_room()

    def _look_later(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._unacknowledged:
            return
        oldest = min(sent for sent, _ in self._unacknowledged.values())
        left = oldest + self._ack_timeout - time.monotonic()
        if left > 0:
            self._look_later(left)
        else:
            # Its later acknowledgement could not be told from that of the next attempt.
            self.abort(f"it did not acknowledge a chunk within {self._ack_timeout:g} s")
