"""The receiver's buffers under event loops, which hold views of them for longer than one thinks."""

import asyncio
import ssl

import pytest
import uvloop

from bridge.forward import Chunk, Client, Receiver, ack_message, tls_context


class Connection(asyncio.BufferedProtocol):
    def __init__(self, chunks):
        self.chunks = chunks
        self.receiver = Receiver(max_message_bytes=1 << 26)

    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, sizehint):
        return self.receiver.get_buffer()

    def buffer_updated(self, nbytes):
        self.receiver.buffer_updated(nbytes)
        while (event := self.receiver.next_event()) is not None:
            if isinstance(event, Chunk):
                self.chunks.append(event)
                self.transport.write(ack_message(event.ack))


@pytest.mark.parametrize("new_loop", [asyncio.SelectorEventLoop, uvloop.new_event_loop])
@pytest.mark.parametrize("encrypted", [False, True], ids=["tcp", "tls"])
def test_long_messages(new_loop, encrypted, server_tls, certificates):
    chunks = []
    entries = [bytes([n]) * size for n, size in enumerate((5 << 20, 0, 10, 3_333_333, 70_000))]
    server_context = server_tls() if encrypted else None
    client_context = tls_context(ca_file=certificates / "ca.pem") if encrypted else None

    def send(port):
        with Client("127.0.0.1", port, tls=client_context, window=4) as client:
            for one in entries * 3:
                client.send_packed("t", one)

    async def run():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Connection(chunks), "127.0.0.1", 0, ssl=server_context
        )
        async with server:
            await asyncio.to_thread(send, server.sockets[0].getsockname()[1])

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())
    assert [chunk.entries for chunk in chunks] == entries * 3
    assert isinstance(server_context, ssl.SSLContext) is encrypted
