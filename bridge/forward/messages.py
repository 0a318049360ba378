"""What travels over a Forward connection, and what the two roles report of it.

Source: Forward protocol v1, https://github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import msgpack

from bridge.decoding import Buffer, Kind, read_head, skip
from bridge.errors import AuthenticationError, MessageTooLarge, ProtocolError

_NIL, _FALSE = b"\xc0", b"\xc2"
_ACK = b"\x81\xa3ack"


@dataclass(slots=True)
class Chunk:
    """A message with events, complete.

    Whoever is done with its entries may empty them, so that no memory is held until the chunk
    can be acknowledged.

    Attributes:
        tag: the tag; bytes that are not UTF-8 are lone surrogates.
        entries: packed entries, as they were received: still compressed if ``compressed`` says so,
            and not looked into.
        count: how many events it holds; in the packed modes what the sender says, which need not be
            true; None if it does not say.
        compressed: ``gzip`` or ``zstd``, None if it is not.
        ack: the value of the option ``chunk`` in msgpack, None if the sender wants no
            acknowledgement. It may be anything: Fluentd's ends in a newline, and only what equals
            it is accepted (ack_handler.rb:141).
    """

    tag: str
    entries: Buffer
    count: int | None
    compressed: str | None
    ack: bytes | None


@dataclass(frozen=True, slots=True)
class Announced:
    """A packed message begins to arrive; its :class:`Chunk` follows.

    The moment to find room for it: until the next event is asked for nothing is allocated.

    Attributes:
        size: bytes of its entries.
    """

    size: int


@dataclass(frozen=True, slots=True)
class SendBytes:
    """The peer is to get these bytes, in one write.

    Attributes:
        data: the bytes.
    """

    data: bytes


@dataclass(frozen=True, slots=True)
class Ready:
    """The server takes chunks now."""


@dataclass(frozen=True, slots=True)
class Acked:
    """The server has taken a chunk.

    Attributes:
        chunk_id: the chunk's id, as bytes whether it was sent as bytes or ``str``.
    """

    chunk_id: bytes


@dataclass(frozen=True, slots=True)
class Helo:
    """The server's first message, if it asks for a shared key.

    Attributes:
        nonce: random bytes for the digests of the shared key.
        auth: random bytes for the digest of the password; empty if no user is asked for.
        keepalive: whether a connection may carry more than one chunk.
    """

    nonce: bytes
    auth: bytes = b""
    keepalive: bool = True

    def encode(self) -> bytes:
        """Return the message in msgpack."""
        options = {"nonce": self.nonce, "auth": self.auth, "keepalive": self.keepalive}
        return _pack(["HELO", options])

    @classmethod
    def decode(cls, message: Any) -> Helo:
        """Return the message that was unpacked.

        Args:
            message: the object, its strings left as bytes.

        Raises:
            ProtocolError: it is none.
        """
        match message:
            case [b"HELO", dict(options)]:
                nonce, auth = options.get(b"nonce", b""), options.get(b"auth", b"")
                if isinstance(nonce, bytes) and isinstance(auth, bytes):
                    return cls(nonce, auth, options.get(b"keepalive") is not False)
        raise ProtocolError("the server's first message is no HELO: is it a Forward server?")


@dataclass(frozen=True, slots=True)
class Ping:
    """The client's answer to :class:`Helo`.

    Attributes:
        hostname: the client's name for itself.
        salt: random bytes for the digests of the shared key.
        digest: proof of the shared key, hexadecimal.
        username: the user, empty for none.
        password_digest: proof of the password, hexadecimal.
    """

    hostname: bytes
    salt: bytes
    digest: bytes
    username: bytes = b""
    password_digest: bytes = b""

    def encode(self) -> bytes:
        """Return the message in msgpack."""
        rest = (self.hostname, self.salt, self.digest, self.username, self.password_digest)
        return _pack(["PING", *map(_as_str, rest)])

    @classmethod
    def decode(cls, message: Any) -> Ping:
        """Return the message that was unpacked.

        Args:
            message: the object, its strings left as bytes.

        Raises:
            AuthenticationError: it is none.
        """
        match message:
            case [
                b"PING",
                bytes(hostname),
                bytes(salt),
                bytes(digest),
                bytes(username),
                bytes(password_digest),
            ]:
                return cls(hostname, salt, digest, username, password_digest)
        raise AuthenticationError("invalid ping message")


@dataclass(frozen=True, slots=True)
class Pong:
    """The server's answer to :class:`Ping`.

    Attributes:
        accepted: whether the client may send chunks.
        reason: why not.
        hostname: the server's name for itself.
        digest: proof of the shared key, hexadecimal.
    """

    accepted: bool
    reason: str = ""
    hostname: bytes = b""
    digest: bytes = b""

    def encode(self) -> bytes:
        """Return the message in msgpack."""
        return _pack(
            ["PONG", self.accepted, self.reason, _as_str(self.hostname), _as_str(self.digest)]
        )

    @classmethod
    def decode(cls, message: Any) -> Pong:
        """Return the message that was unpacked.

        Args:
            message: the object, its strings left as bytes.

        Raises:
            ProtocolError: it is none.
        """
        match message:
            case [b"PONG", bool(accepted), bytes(reason), bytes(hostname), bytes(digest)]:
                return cls(accepted, reason.decode("utf-8", "replace"), hostname, digest)
        raise ProtocolError("the server's answer to PING is no PONG")


class Option(NamedTuple):
    """What follows the entries of a message.

    Attributes:
        ack: as :attr:`Chunk.ack`.
        size: how many events the sender says that there are.
        compressed: the method of compression as it was sent, None if there is none.
    """

    ack: bytes | None = None
    size: int | None = None
    compressed: str | None = None

    @classmethod
    def decode(cls, data: Buffer) -> Option:
        """Return the option in one complete msgpack object; unknown keys are ignored.

        Args:
            data: the object.

        Raises:
            ProtocolError: it is neither a map nor nil.
        """
        head = read_head(data, 0, len(data))
        assert head is not None
        if bytes(data) == _NIL:
            return cls()
        if head.kind is not Kind.MAP:
            raise ProtocolError(f"the option is a msgpack {head.kind.name.lower()}, not a map")
        found: dict[bytes | None, bytes] = {}
        pos = head.size
        for _ in range(head.length):
            value = skip(data, pos)
            end = skip(data, value)
            found[_text(data[pos:value])] = bytes(data[value:end])
            pos = end
        found = {key: value for key, value in found.items() if value not in (_NIL, _FALSE)}
        compressed = found.get(b"compressed")
        method = None
        if compressed is not None:
            text = _text(compressed)
            method = repr(compressed) if text is None else text.decode("utf-8", "backslashreplace")
        return cls(found.get(b"chunk"), _count(found.get(b"size")), method)


def ack_message(raw: bytes) -> bytes:
    """Return the acknowledgement of a chunk, to be sent in one write.

    Args:
        raw: :attr:`Chunk.ack`.
    """
    return _ACK + raw


def packed_forward(
    tag: str,
    entries: Buffer,
    *,
    count: int | None = None,
    chunk_id: bytes | str | None = None,
    compressed: str | None = None,
) -> list[Buffer]:
    """Return a message in PackedForward mode as buffers to write one after the other.

    Args:
        tag: the tag.
        entries: packed entries; not copied, so not to be changed until they are written.
        count: how many events they hold.
        chunk_id: an id for the acknowledgement, sent as a string; None for no acknowledgement.
        compressed: ``gzip`` or ``zstd`` if that is what the entries are.

    Raises:
        MessageTooLarge: the entries are 4 GiB or more, which the format cannot say.
    """
    option: dict[str, Any] = {}
    if count is not None:
        option["size"] = count
    if compressed is not None:
        option["compressed"] = compressed
    if chunk_id is not None:
        option["chunk"] = chunk_id if isinstance(chunk_id, str) else _as_str(chunk_id)
    size = len(entries)
    if size >> 32:
        raise MessageTooLarge(f"{size} bytes of entries under tag {tag!r}: send smaller chunks")
    head = b"\x93" + _pack(tag) + b"\xc6" + size.to_bytes(4)  # array of 3, tag, bin32
    return [head, entries, _pack(option)]


def _pack(value: Any) -> bytes:
    return msgpack.packb(value, unicode_errors="surrogateescape")  # type: ignore[no-any-return]


def _as_str(value: bytes) -> str:
    """Return what is packed as a string of these bytes."""
    return value.decode("utf-8", "surrogateescape")


def _text(data: Buffer) -> bytes | None:
    """Return what a msgpack string, or bin, holds; None for anything else."""
    head = read_head(data, 0, len(data))
    assert head is not None
    return bytes(data[head.size :]) if head.kind in (Kind.STR, Kind.BIN) else None


def _count(data: bytes | None) -> int | None:
    """Return a positive integer in msgpack; 0 is what a sender says that does not know."""
    if not data:
        return None
    first = data[0]
    if first <= 0x7F:
        return first or None
    if 0xCC <= first <= 0xD3:  # unsigned, then signed
        return max(int.from_bytes(data[1:], signed=first >= 0xD0), 0) or None
    return None
