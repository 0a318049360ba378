"""The least that can stand between out_forward and in_forward: hands chunks on, then their acks."""

import contextlib
import socket
import socketserver
import threading

import msgpack


class Relay:
    """Passes each message on as it came and acknowledges it once in_forward has.

    Counts entries from the `size` option. `stop` closes every connection, as a kill would;
    `start` listens on the same port again.
    """

    def __init__(self, port, return_port):
        self.port = port
        self.return_port = return_port
        self.chunks = 0
        self.events = 0
        self.connections = 0
        self._server = None
        self._sockets = set()
        self._lock = threading.Lock()

    def start(self):
        relay = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                with contextlib.suppress(OSError):
                    relay._serve(self.request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            block_on_close = False
            request_queue_size = 128

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        server, self._server = self._server, None
        if server:
            server.shutdown()
            server.server_close()
        with self._lock:
            for connection in self._sockets:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _serve(self, upstream):
        with socket.create_connection(("127.0.0.1", self.return_port)) as downstream:
            with self._lock:
                self.connections += 1
                self._sockets |= {upstream, downstream}
            try:
                self._pass_on(upstream, downstream)
            finally:
                with self._lock:
                    self._sockets -= {upstream, downstream}

    def _pass_on(self, upstream, downstream):
        unpacker = msgpack.Unpacker(raw=True, max_buffer_size=256 << 20)
        while received := upstream.recv(1 << 18):
            unpacker.feed(received)
            for tag, entries, option in unpacker:
                # bin8 and its like for the entries, where out_forward has str32: in_forward takes both.
                downstream.sendall(msgpack.packb([tag.decode(), entries, option]))
                ack = downstream.recv(512)
                if not ack:
                    return
                upstream.sendall(ack)  # one send: out_forward reads it in one piece
                with self._lock:
                    self.chunks += 1
                    self.events += option[b"size"]

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_error):
        self.stop()
