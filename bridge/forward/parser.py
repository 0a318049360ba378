"""How the messages of a client are read, in the order in which their parts arrive.

Source: Forward protocol v1, "Event Modes"; Fluentd's plugin/in_forward.rb (``on_message``).
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import msgpack

from bridge.decoding import Buffer, Head, Kind, read_head
from bridge.errors import AuthenticationError, MessageTooLarge, NotAnEvent, ProtocolError
from bridge.events import EventTime
from bridge.forward.auth import ServerAuth
from bridge.forward.buffer import InputBuffer
from bridge.forward.codec import METHODS
from bridge.forward.framing import Scanner
from bridge.forward.messages import Announced, Chunk, Helo, Option, Ping, Pong, SendBytes

Event = Chunk | Announced | SendBytes

_NIL = 0xC0
_MAX_TAG = 4096
_MAX_OPTION = 64 << 10
_MAX_HANDSHAKE = 4096

# What strangers say first, and what to do about it. In msgpack these are the integers 91, 123, 22.
_STRANGERS = {
    0x5B: "JSON is not accepted, send msgpack",
    0x7B: "JSON is not accepted, send msgpack",
    0x16: "it looks like TLS: set TLS up on both ends or on neither",
}


class Parser:
    """Reads messages out of a buffer; each ``yield None`` waits for more bytes in it.

    Args:
        buffer: where the bytes are.
        max_message_bytes: as for :class:`~bridge.forward.receiver.Receiver`.
        clock: the time for events that have none.

    Attributes:
        tag: the tag of the message that is arriving, None before it is known.
    """

    def __init__(
        self, buffer: InputBuffer, max_message_bytes: int, clock: Callable[[], EventTime]
    ) -> None:
        self.tag: str | None = None
        self._buffer = buffer
        self._max_message_bytes = max_message_bytes
        self._clock = clock
        self._limit = max_message_bytes  # how far the part that is arriving may reach in the buffer

    def run(
        self, auth: ServerAuth | None, helo: Helo | None
    ) -> Generator[Event | None, None, None]:
        """Yield events for ever, None where it takes more bytes.

        Raises:
            ProtocolError: the bytes cannot be, or lead to, a message that is accepted.
        """
        if auth is not None:
            assert helo is not None
            yield from self._handshake(auth, helo)
        while True:
            self.tag = None
            self._limit = self._max_message_bytes
            head = yield from self._head(0)
            if head.kind is Kind.ARRAY:
                yield from self._message(head)
                continue
            byte = self._buffer.data[self._buffer.start]
            if byte != _NIL:  # nil keeps a connection alive (in_forward.rb:284)
                hint = _STRANGERS.get(byte, "a message is a msgpack array")
                raise ProtocolError(
                    f"not the Forward protocol, a message begins with byte 0x{byte:02x}: {hint}"
                )
            self._buffer.consume(head.size)
            self._buffer.complete()

    def _handshake(self, auth: ServerAuth, helo: Helo) -> Generator[Event | None, None, None]:
        self._limit = _MAX_HANDSHAKE
        try:
            head = yield from self._head(0)
            # A chunk, which has 2 to 4 parts, is refused before it has arrived.
            end = head.size
            if (head.kind, head.length) == (Kind.ARRAY, 6):
                end = yield from self._end(0)
            ping = Ping.decode(_unpack(self._buffer.copy(0, end)))
            auth.check(helo, ping)
        except AuthenticationError as error:
            # At most 31 bytes: fluent-bit before 5.0.8 copies them to its stack unchecked.
            yield SendBytes(Pong(accepted=False, reason=str(error)).encode())
            raise AuthenticationError(
                f"the handshake failed, {error}: set the same shared key, user and password on"
                " both ends"
            ) from None
        self._buffer.consume(end)
        self._buffer.complete()
        yield SendBytes(auth.pong(helo, ping).encode())

    def _message(self, head: Head) -> Generator[Event | None, None, None]:
        tag_head = yield from self._head(head.size)
        if tag_head.kind not in (Kind.STR, Kind.BIN):
            raise NotAnEvent("a message begins with its tag, a string: this one does not")
        if tag_head.length > _MAX_TAG:
            raise MessageTooLarge(f"a tag of {tag_head.length} bytes, the limit is {_MAX_TAG}")
        tag_at = head.size + tag_head.size
        pos = tag_at + tag_head.length
        yield from self._need(pos)
        self.tag = self._buffer.copy(tag_at, pos).decode("utf-8", "surrogateescape")
        second = yield from self._head(pos)
        if second.kind in (Kind.STR, Kind.BIN):
            yield from self._packed(pos + second.size, second.length, head.length - 2)
        elif second.kind is Kind.ARRAY:
            end = yield from self._end(pos)
            entries = self._buffer.copy(pos + second.size, end)
            option = yield from self._option(end, head.length - 2)
            yield self._chunk(entries, second.length, None, option)
        else:
            yield from self._single(pos, second, head.length - 3)

    def _packed(self, pos: int, size: int, options: int) -> Generator[Event | None, None, None]:
        """Read on in the modes PackedForward and CompressedPackedForward."""
        buffer = self._buffer
        if size > self._max_message_bytes:
            raise MessageTooLarge(
                f"{self._subject()} has {size} bytes of entries, the limit is"
                f" {self._max_message_bytes}: raise it, or send smaller chunks"
            )
        buffer.consume(pos)
        yield Announced(size)
        if size <= len(buffer):
            entries = buffer.copy(0, size)
            buffer.consume(size)
        else:
            buffer.begin_body(size)
            while buffer.body_missing:
                yield None
            entries = buffer.take_body()
        option = yield from self._option(0, options)
        method = option.compressed
        # Fluentd always says; "text" is its word for none (out_forward.rb:692).
        if method == "text":
            method = None
        elif method is not None and method not in METHODS:
            raise ProtocolError(
                f"{self._subject()} has unknown compression {method!r}: known are"
                f" {', '.join(sorted(METHODS))}"
            )
        yield self._chunk(entries, option.size, method, option)

    def _single(self, pos: int, time: Head, options: int) -> Generator[Event | None, None, None]:
        """Read on in Message mode: one event, its time and its record side by side."""
        if options < 0:
            raise NotAnEvent(f"{self._subject()} has neither entries nor time and record")
        buffer = self._buffer
        record_at = pos + time.size + time.length + (time.kind is Kind.EXT)
        if time.kind is Kind.EXT and time.length != 8:
            raise NotAnEvent(f"{self._subject()}: its time is no EventTime")
        yield from self._need(record_at)
        packed_time = self._time(buffer.copy(pos, record_at), time)
        record = yield from self._head(record_at)
        if record.kind is not Kind.MAP:
            raise NotAnEvent(f"{self._subject()}: its record is no map")
        end = yield from self._end(record_at)
        entry = b"\x92" + packed_time + buffer.copy(record_at, end)
        option = yield from self._option(end, options)
        yield self._chunk(entry, 1, None, option)

    def _time(self, time: bytearray, head: Head) -> Buffer:
        first = time[0]
        if head.kind is Kind.EXT:
            if time[head.size] != 0:  # its type
                raise NotAnEvent(f"{self._subject()}: its time is no EventTime")
            seconds = time[-8:-4]
        elif first <= 0x7F or first >= 0xE0:
            seconds = time
        elif 0xCA <= first <= 0xD3:
            seconds = time[1:]
        else:
            raise NotAnEvent(f"{self._subject()}: its time is neither a number nor an EventTime")
        # Whole seconds of 0 mean now, whatever the nanoseconds (in_forward.rb:357).
        return time if any(seconds) else b"\xd7\x00" + self._clock().to_bytes()

    def _option(self, pos: int, parts: int) -> Generator[None, None, Option]:
        """Read the option, if there is one, and consume the message."""
        option = Option()
        if parts not in (0, 1):
            raise NotAnEvent(f"{self._subject()} has parts after its option, or no entries")
        if parts:
            self._limit = pos + _MAX_OPTION
            end = yield from self._end(pos)
            try:
                option = Option.decode(self._buffer.copy(pos, end))
            except ProtocolError as error:
                raise ProtocolError(f"{self._subject()}: {error}") from None
            pos = end
        self._buffer.consume(pos)
        self._buffer.complete()
        return option

    def _chunk(
        self, entries: Buffer, count: int | None, compressed: str | None, option: Option
    ) -> Chunk:
        assert self.tag is not None
        tag, self.tag = self.tag, None
        return Chunk(tag, entries, count, compressed, option.ack)

    def _head(self, pos: int) -> Generator[None, None, Head]:
        buffer = self._buffer
        while True:
            end = min(buffer.end, buffer.start + self._limit)
            head = read_head(buffer.data, buffer.start + pos, end)
            if head is None:
                yield from self._more()
            elif head.kind is Kind.INVALID:
                raise ProtocolError(f"{self._subject()} is not msgpack: it holds the byte 0xc1")
            else:
                return head

    def _need(self, size: int) -> Generator[None, None, None]:
        while not len(self._buffer) >= size <= self._limit:
            yield from self._more()

    def _end(self, pos: int) -> Generator[None, None, int]:
        """Return where an object ends."""
        buffer = self._buffer
        scanner = Scanner(pos)
        while True:
            end = min(buffer.end, buffer.start + self._limit)
            try:
                if scanner.scan(buffer.data, buffer.start, end):
                    return scanner.pos
            except ProtocolError as error:
                raise ProtocolError(f"{self._subject()}: {error}") from None
            yield from self._more()

    def _more(self) -> Generator[None, None, None]:
        if len(self._buffer) >= self._limit:
            raise MessageTooLarge(
                f"{self._subject()} is over the limit of {self._limit} bytes: raise it, or send"
                " smaller chunks"
            )
        yield None

    def _subject(self) -> str:
        return "the message" if self.tag is None else f"the message under tag {self.tag!r}"


def _unpack(data: bytearray) -> object:
    """Return the object, None if it is none that a handshake has."""
    try:
        # Without the limits a few nested headers would have it allocate what they promise.
        return msgpack.unpackb(data, raw=True, max_array_len=6, max_map_len=0)
    except (msgpack.UnpackException, ValueError, TypeError, OverflowError):
        return None
