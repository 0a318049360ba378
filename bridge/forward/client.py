"""A blocking client: sends events to a Forward server, and waits for the acknowledgements."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from bridge.decoding import Buffer
from bridge.errors import (
    AuthenticationError,
    ConnectionLost,
    DeliveryError,
    NotAcknowledged,
    ProtocolError,
)
from bridge.events import EventTime
from bridge.forward import codec
from bridge.forward.auth import ClientAuth
from bridge.forward.messages import Acked, SendBytes, packed_forward
from bridge.forward.sender import Sender

_JOIN_BELOW = 64 << 10  # a message this short is copied into one buffer, to be one packet or few
_READ = 4096


def tls_context(
    *,
    ca_file: str | Path | None = None,
    cert_file: str | Path | None = None,
    key_file: str | Path | None = None,
) -> ssl.SSLContext:
    """Return a TLS context for a client, which verifies the server and its name.

    Args:
        ca_file: certificates to trust, in PEM; None for the system's.
        cert_file: the client's own certificate, for mutual TLS.
        key_file: its key, if it is not in ``cert_file``.

    Raises:
        OSError: a file cannot be read or used.
    """
    context = ssl.create_default_context(cafile=ca_file)
    if cert_file is not None:
        context.load_cert_chain(cert_file, key_file)
    return context


class Client:
    """A connection to a Forward server, for one thread.

        with Client("127.0.0.1", 24224) as client:
            client.send("ad.click", [{"price": 1.5}])

    With acknowledgements, which are the default, :meth:`send` and :meth:`flush` raise unless all is
    well, and the events of a chunk are delivered if and only if its id is not in
    :attr:`unacknowledged`. It is the caller's duty to keep events until then, and to send them
    again after an error, in which case some may arrive twice. The next call connects again by
    itself. Without acknowledgements nobody knows what has been delivered.

    Args:
        host: name or address of the server, or the path of a Unix socket, which begins with ``/``.
        port: the port.
        acks: whether to ask for acknowledgements.
        window: how many chunks may be sent and not acknowledged. With 1 each is acknowledged
            when :meth:`send` returns; more is faster.
        shared_key: for a server that asks for it.
        username: for a server that asks for a user.
        password: the user's password.
        hostname: the client's name for itself in the handshake; the machine's name if not given.
        tls: a context (see :func:`tls_context`), True for the default one.
        timeout: seconds to connect in, to write a chunk in, and from the sending of a chunk to its
            acknowledgement.
        compress: ``gzip`` or ``zstd`` to compress what :meth:`send` is given.

    Attributes:
        address: where it connects to, for messages.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 24224,
        *,
        acks: bool = True,
        window: int = 1,
        shared_key: str | None = None,
        username: str | None = None,
        password: str | None = None,
        hostname: str | None = None,
        tls: ssl.SSLContext | bool | None = None,
        timeout: float = 60.0,
        compress: str | None = None,
    ) -> None:
        if window < 1:
            raise ValueError(f"window is {window}: at least one chunk must be on its way")
        if compress is not None and compress not in codec.METHODS:
            raise ValueError(f"compress is {compress!r}: use one of {sorted(codec.METHODS)}")
        self.address = host if host.startswith("/") else f"{host}:{port}"
        self._host = host
        self._port = port
        self._acks = acks
        self._window = window
        self._auth = None
        if shared_key is not None:
            self._auth = ClientAuth(
                shared_key=shared_key,
                hostname=hostname or socket.gethostname(),
                username=username or "",
                password=password or "",
            )
        elif username is not None:
            raise ValueError("a user name needs a shared_key: servers ask for both or for none")
        self._tls = ssl.create_default_context() if tls is True else tls or None
        self._timeout = timeout
        self._compress = compress
        self._socket: socket.socket | None = None
        self._sender = Sender()
        self._sent: dict[str, float] = {}  # when, by id of the chunk

    @property
    def unacknowledged(self) -> tuple[str, ...]:
        """The ids of chunks sent and not acknowledged, in the order in which they were sent.

        After an error those remain that are to be sent again, until the next call connects.
        """
        return tuple(self._sent)

    def connect(self) -> None:
        """Connect, and show who we are to a server that asks; nothing if it is connected.

        Raises:
            ConnectionLost: there is no server, or it does not answer in time.
            AuthenticationError: the server refuses, or does not know the shared key.
        """
        if self._socket is not None:
            return
        self._sent.clear()
        self._sender = Sender(self._auth)
        try:
            self._socket = self._open()
        except OSError as error:
            raise ConnectionLost(
                f"cannot connect to {self.address}: {error}. Does a server listen there,"
                f" {'with' if self._tls else 'without'} TLS?"
            ) from error
        deadline = time.monotonic() + self._timeout
        self._sender.start()
        try:
            while not self._sender.ready:
                self._receive(deadline)
        except NotAcknowledged:
            raise ConnectionLost(
                f"{self.address} sent no handshake within {self._timeout:g} s: if it asks for no"
                " shared key, set none here"
            ) from None

    def send(self, tag: str, events: Iterable[Any]) -> str | None:
        """Send events as one chunk.

        Args:
            tag: their tag.
            events: records, which are given the present time, or pairs of a time (an
                :class:`~bridge.events.EventTime` or seconds since 1970) and a record.

        Returns:
            The chunk's id; None without acknowledgements, or if there were no events.

        Raises:
            ConnectionLost, NotAcknowledged, AuthenticationError, ProtocolError: see the class; all
                name the server.
            TypeError, ValueError, OverflowError: a record holds what msgpack does not.
        """
        now = EventTime.now()
        pairs = [(now, one) if isinstance(one, dict) else one for one in events]
        if not pairs:
            return None
        entries: Buffer = codec.pack_entries(pairs)
        if self._compress is not None:
            entries = codec.compress(entries, self._compress)
        return self.send_packed(tag, entries, len(pairs), compressed=self._compress)

    def send_packed(
        self, tag: str, entries: Buffer, count: int | None = None, *, compressed: str | None = None
    ) -> str | None:
        """Send packed entries as one chunk.

        Args:
            tag: their tag.
            entries: packed entries.
            count: how many events they hold, if that is known.
            compressed: how they are compressed already, if they are.

        Returns:
            The chunk's id; None without acknowledgements.

        Raises:
            ConnectionLost, NotAcknowledged, AuthenticationError, ProtocolError: see the class.
        """
        self.connect()
        chunk_id = base64.b64encode(os.urandom(16)).decode() if self._acks else None
        parts = packed_forward(tag, entries, count=count, chunk_id=chunk_id, compressed=compressed)
        if chunk_id is not None:
            self._sent[chunk_id] = time.monotonic()
        if sum(map(len, parts)) < _JOIN_BELOW:
            parts = [b"".join(parts)]
        for part in parts:
            self._write(part)
        self._await_acks(self._window - 1)
        return chunk_id

    def flush(self) -> None:
        """Return when all chunks have been acknowledged.

        Raises:
            ConnectionLost, NotAcknowledged, AuthenticationError, ProtocolError: see the class.
        """
        if self._socket is not None:
            self._await_acks(0)
        elif self._sent:
            raise ConnectionLost(
                f"no connection to {self.address}: send the {len(self._sent)} unacknowledged"
                " chunks again"
            )

    def close(self) -> None:
        """End the connection; chunks that are not acknowledged stay so."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self.close()

    def _open(self) -> socket.socket:
        if self._host.startswith("/"):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(self._timeout)
            try:
                connection.connect(self._host)
            except OSError:
                connection.close()
                raise
        else:
            connection = socket.create_connection((self._host, self._port), self._timeout)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            return connection
        try:
            return self._tls.wrap_socket(connection, server_hostname=self._host)
        except BaseException:
            connection.close()
            raise

    def _write(self, data: Buffer) -> None:
        assert self._socket is not None
        try:
            self._socket.settimeout(self._timeout)
            self._socket.sendall(data)
        except OSError as error:
            raise self._lost(str(error)) from error
        except BaseException:
            self.close()  # what follows half a message would be taken for the rest of it
            raise

    def _await_acks(self, left: int) -> None:
        while len(self._sent) > left:
            # dicts keep their order: the first was sent before all others
            self._receive(next(iter(self._sent.values())) + self._timeout)

    def _receive(self, deadline: float) -> None:
        """Take what the server sends, at least something."""
        assert self._socket is not None
        try:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            data = self._socket.recv(_READ)
        except TimeoutError:
            self.close()
            raise NotAcknowledged(
                f"{self.address} did not acknowledge within {self._timeout:g} s: send"
                f" {len(self._sent)} chunks again, they may then arrive twice"
            ) from None
        except OSError as error:
            raise self._lost(str(error)) from error
        if not data:
            raise self._lost("the server closed it")
        try:
            for event in self._sender.receive(data):
                match event:
                    case SendBytes(answer):
                        self._write(answer)
                    case Acked(chunk_id):
                        self._acknowledged(chunk_id)
        except (AuthenticationError, ProtocolError) as error:
            self.close()
            raise type(error)(f"{self.address}: {error}") from error

    def _acknowledged(self, chunk_id: bytes) -> None:
        known = chunk_id.decode("utf-8", "replace")
        if self._sent.pop(known, None) is None:
            raise ProtocolError(f"the server acknowledged {known!r}, which was not sent")

    def _lost(self, reason: str) -> DeliveryError:
        self.close()
        again = f": send {len(self._sent)} chunks again" if self._sent else ""
        hint = "" if self._sender.ready else " during the handshake, see the server's log"
        return ConnectionLost(f"the connection to {self.address} was lost{hint}, {reason}{again}")
