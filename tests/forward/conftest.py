"""A small server around Receiver, on real sockets."""

import contextlib
import socket
import ssl
import threading
import time

import pytest

from bridge.errors import ProtocolError
from bridge.forward import Chunk, Receiver, SendBytes, ack_message
from bridge.forward.codec import decode_entries, decompress


class Server:
    """Takes chunks in threads, one a connection, and acknowledges them.

    `silent` makes it acknowledge nothing, `hang_up` close instead of acknowledging.
    """

    def __init__(self, *, auth=None, tls=None, path=None, silent=False, hang_up=False):
        self.chunks = []
        self.errors = []
        self.silent, self.hang_up = silent, hang_up
        self.in_flight = 0  # the most chunks that came before an acknowledgement was sent
        self._auth, self._tls = auth, tls
        self._listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self._listener.bind(str(path) if path else ("127.0.0.1", 0))
        self._listener.listen()
        self.port = None if path else self._listener.getsockname()[1]
        self._open = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def events(self):
        return [event for chunk in list(self.chunks) for event in self.events_of(chunk)]

    @staticmethod
    def events_of(chunk):
        entries = chunk.entries
        if chunk.compressed:
            entries = decompress(entries, chunk.compressed, 1 << 26)
        return decode_entries(entries)

    def wait(self, condition, seconds=30):
        deadline = time.monotonic() + seconds
        while not condition(self):
            assert time.monotonic() < deadline, (self.chunks, self.errors)
            time.sleep(0.01)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection):
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                self._converse(connection)
        except (OSError, ProtocolError) as error:
            self.errors.append(error)
            connection.close()

    def _converse(self, connection):
        receiver = Receiver(max_message_bytes=1 << 26, auth=self._auth)
        connection.sendall(receiver.start())
        while count := connection.recv_into(receiver.get_buffer()):
            receiver.buffer_updated(count)
            acks = []
            while (event := receiver.next_event()) is not None:
                if isinstance(event, SendBytes):
                    connection.sendall(event.data)
                elif isinstance(event, Chunk):
                    if self.hang_up:
                        return
                    self.chunks.append(event)
                    if event.ack is not None:
                        acks.append(ack_message(event.ack))
            self.in_flight = max(self.in_flight, len(acks))
            for ack in acks:
                if not self.silent:
                    connection.sendall(ack)


@pytest.fixture
def serve():
    """Return a function that starts a server for the time of the test."""
    with _servers() as start:
        yield start


@pytest.fixture(scope="module")
def start_server():
    """Return a function that starts a server for the time of the module."""
    with _servers() as start:
        yield start


@contextlib.contextmanager
def _servers():
    with contextlib.ExitStack() as stack:

        def start(**options):
            server = Server(**options)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture
def server_tls(certificates):
    """Return a function that makes the server's TLS context, mutual if wanted."""

    def make(*, mutual=False):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates / "server.pem")
        if mutual:
            context.load_verify_locations(certificates / "ca.pem")
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    return make
