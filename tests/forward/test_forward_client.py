"""The blocking client, against a server around Receiver on real sockets."""

import socket
import ssl
import time

import pytest

from bridge.errors import AuthenticationError, ConnectionLost, NotAcknowledged, ProtocolError
from bridge.events import EventTime
from bridge.forward import Client, ServerAuth, tls_context
from bridge.forward.codec import pack_entries

AUTH = ServerAuth(shared_key="key", hostname="server", users={"ann": "secret"})
KEYS = {"shared_key": "key", "username": "ann", "password": "secret"}


def test_send(serve):
    server = serve()
    before = EventTime.now()
    with Client("127.0.0.1", server.port) as client:
        first = client.send("ad.x", [{"a": 1}, (5, {"b": 2}), (EventTime(6, 7), {"c": "\udcff"})])
        assert client.unacknowledged == ()
        second = client.send("ad.y", iter([{"d": 4}]))
        assert client.send("ad.z", []) is None
    assert len(first) == len(second) == 24
    assert first != second
    assert [chunk.tag for chunk in server.chunks] == ["ad.x", "ad.y"]
    assert [chunk.count for chunk in server.chunks] == [3, 1]
    assert server.chunks[0].ack == b"\xb8" + first.encode()
    (now, a), *rest = server.events
    assert before <= now <= EventTime.now()
    assert a == {"a": 1}
    assert rest[:2] == [(5, {"b": 2}), (EventTime(6, 7), {"c": "\udcff"})]


@pytest.mark.parametrize("compress", [None, "gzip", "zstd"])
@pytest.mark.parametrize("count", [1, 30_000])
def test_compress(serve, compress, count):
    server = serve()
    events = [(n, {"n": n, "text": "x" * 40}) for n in range(count)]
    with Client("127.0.0.1", server.port, compress=compress) as client:
        client.send("t", events)
    assert server.chunks[0].compressed == compress
    assert server.events == events


def test_without_acks(serve):
    server = serve()
    with Client("127.0.0.1", server.port, acks=False) as client:
        for n in range(100):
            assert client.send("t", [(n, {})]) is None
    server.wait(lambda server: len(server.chunks) == 100)
    assert {chunk.ack for chunk in server.chunks} == {None}


def test_window(serve):
    server = serve()
    with Client("127.0.0.1", server.port, window=50) as client:
        for n in range(1000):
            client.send_packed("t", pack_entries([(n, {})]), 1)
            assert len(client.unacknowledged) < 50
        client.flush()
        assert client.unacknowledged == ()
    assert [time for time, _ in server.events] == list(range(1000))
    assert 1 < server.in_flight <= 50


def test_unix_socket(serve, tmp_path):
    server = serve(path=tmp_path / "s")
    with Client(str(tmp_path / "s")) as client:
        client.send("t", [(1, {})])
    assert server.events == [(1, {})]


def test_no_server():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ConnectionLost, match=f"cannot connect to 127.0.0.1:{port}: .*listen"):
            Client("127.0.0.1", port).send("t", [{}])


def test_no_socket(tmp_path):
    with pytest.raises(ConnectionLost, match=r"cannot connect to .*/absent"):
        Client(str(tmp_path / "absent")).connect()


def test_lost_then_sent_again(serve):
    server = serve(hang_up=True)
    client = Client("127.0.0.1", server.port)
    with pytest.raises(ConnectionLost, match=f":{server.port} was lost, .*: send 1 chunks again"):
        client.send("t", [(1, {})])
    assert len(client.unacknowledged) == 1
    with pytest.raises(ConnectionLost, match="send the 1 unacknowledged chunks again"):
        client.flush()
    server.hang_up = False
    client.send("t", [(1, {})])
    assert client.unacknowledged == ()
    client.close()
    client.close()
    assert server.events == [(1, {})]


def test_not_acknowledged(serve):
    server = serve(silent=True)
    client = Client("127.0.0.1", server.port, window=3, timeout=0.3)
    client.send("t", [(1, {})])
    client.send("t", [(2, {})])
    began = time.monotonic()
    with pytest.raises(NotAcknowledged, match=r"within 0.3 s: send 2 chunks again"):
        client.flush()
    assert time.monotonic() - began < 5
    assert len(client.unacknowledged) == 2
    server.silent = False
    client.send("t", [(3, {})])
    client.flush()
    client.close()


def test_an_error_in_the_block_is_not_hidden_by_waiting(serve):
    server = serve(silent=True)
    client = Client("127.0.0.1", server.port, window=9)
    client.send("t", [{}])
    with pytest.raises(TypeError), client:  # and not NotAcknowledged, after a minute
        client.send("t", [{"a": object()}])


def test_a_record_that_cannot_be_packed_changes_nothing(serve):
    server = serve()
    with Client("127.0.0.1", server.port) as client:
        with pytest.raises(TypeError):
            client.send("t", [{"a": object()}])
        assert client.unacknowledged == ()
        client.send("t", [(1, {})])
    assert server.events == [(1, {})]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"window": 0}, "window is 0"),
        ({"compress": "lz4"}, r"compress is 'lz4': use one of \['gzip', 'zstd'\]"),
        ({"username": "ann"}, "needs a shared_key"),
    ],
)
def test_options(options, text):
    with pytest.raises(ValueError, match=text):
        Client("127.0.0.1", 1, **options)


# A server that does not behave


@pytest.fixture
def script():
    """Return a function that listens, and answers whatever comes first with some bytes."""
    import threading

    listener = socket.create_server(("127.0.0.1", 0))
    threads = []

    def start(answer):
        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(answer)
                connection.recv(10_000)

        threads.append(threading.Thread(target=serve, daemon=True))
        threads[-1].start()
        return listener.getsockname()[1]

    yield start
    for thread in threads:
        thread.join(10)
    listener.close()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 400 Bad Request", "no acknowledgement"),
        (b"\x81\xa3ack\xa3who", "acknowledged 'who', which was not sent"),
        (b"\x81\xa3ack\xa2\xff\xfe", "which was not sent"),
    ],
)
def test_a_server_that_answers_something_else(script, answer, text):
    port = script(answer)
    client = Client("127.0.0.1", port)
    with pytest.raises(ProtocolError, match=f"127.0.0.1:{port}: .*{text}"):
        client.send("t", [{}])
    assert len(client.unacknowledged) == 1


# Authentication


def test_auth(serve):
    server = serve(auth=AUTH)
    with Client("127.0.0.1", server.port, **KEYS) as client:
        client.send("t", [(1, {})])
    assert server.events == [(1, {})]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"shared_key": "other"}, "refused: shared_key mismatch"),
        ({"password": "other"}, "refused: username/password mismatch"),
        ({"username": None}, "set the user name"),
    ],
)
def test_auth_refused(serve, changes, text):
    server = serve(auth=AUTH)
    with pytest.raises(AuthenticationError, match=f"127.0.0.1:{server.port}: .*{text}"):
        Client("127.0.0.1", server.port, **KEYS | changes).connect()


def test_no_key_for_a_server_that_asks(serve):
    server = serve(auth=AUTH)
    with pytest.raises(AuthenticationError, match="asks for a shared key: set it"):
        Client("127.0.0.1", server.port).send("t", [{}])
    assert server.chunks == []


def test_a_key_for_a_server_that_does_not_ask(serve):
    server = serve()
    with pytest.raises(ConnectionLost, match=r"no handshake within 0.2 s: .*set none here"):
        Client("127.0.0.1", server.port, timeout=0.2, **KEYS).connect()


# TLS


def test_tls(serve, server_tls, certificates):
    server = serve(tls=server_tls(), auth=AUTH)
    tls = tls_context(ca_file=certificates / "ca.pem")
    events = [(n, {"text": "x" * 100}) for n in range(20_000)]
    with Client("127.0.0.1", server.port, tls=tls, window=3, **KEYS) as client:
        for _ in range(5):
            client.send("t", events)
    assert server.events == events * 5


def test_mutual_tls(serve, server_tls, certificates):
    server = serve(tls=server_tls(mutual=True))
    tls = tls_context(ca_file=certificates / "ca.pem", cert_file=certificates / "client.pem")
    with Client("127.0.0.1", server.port, tls=tls) as client:
        client.send("t", [(1, {})])
    assert server.events == [(1, {})]


@pytest.mark.parametrize("own", [None, "stranger.pem"])
def test_mutual_tls_refused(serve, server_tls, certificates, own):
    server = serve(tls=server_tls(mutual=True))
    tls = tls_context(
        ca_file=certificates / "ca.pem", cert_file=certificates / own if own else None
    )
    with pytest.raises(ConnectionLost):  # TLS 1.3 tells the client after its own handshake
        Client("127.0.0.1", server.port, tls=tls).send("t", [{}])
    server.wait(lambda server: server.errors)
    assert isinstance(server.errors[0], ssl.SSLError)
    assert server.chunks == []


def test_a_server_that_is_not_trusted(serve, server_tls):
    server = serve(tls=server_tls())
    with pytest.raises(ConnectionLost, match=r"cannot connect to .*certificate verify failed"):
        Client("127.0.0.1", server.port, tls=True).connect()


def test_tls_to_a_server_without(serve):
    server = serve()
    with pytest.raises(ConnectionLost, match=r"cannot connect to .* with TLS\?"):
        Client("127.0.0.1", server.port, tls=True, timeout=5).connect()
    server.wait(lambda server: server.errors)
    assert "it looks like TLS" in str(server.errors[0])
