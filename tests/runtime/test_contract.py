"""The delivery contract of road A, line by line, on a running sidecar."""

import base64
import gzip
import os
import signal
import socket
import struct
import threading
import time

import msgpack
import pytest

from bridge.errors import AuthenticationError, ConnectionLost
from bridge.forward import Client, ServerAuth, codec
from bridge.local.processes import free_port
from bridge.local.sidecar import Sidecar
from bridge.local.sink import Sink

ECHO = """
@bridge.filter("ad.**")
def same(record: dict) -> dict:
    return record
"""

GATED = """
import pathlib, time

@bridge.filter("ad.**")
def gated(record: dict) -> dict:
    while not pathlib.Path({gate!r}).exists():
        time.sleep(0.01)
    return record
"""


def deep(levels):
    return b"\x91" * levels + b"\x01"


# What stands in the contract's row on odd content, each as the value of a field or as a whole record.
ODD_RECORDS = {
    "not UTF-8": b"\x81\xa1k\xa3\xff\xfe\x80",
    "a key that is not UTF-8": b"\x81\xa2\xff\xfe\x01",
    "NaN": b"\x81\xa1k\xcb" + struct.pack(">Q", 0x7FF8000000000001),
    "infinity": b"\x81\xa1k\xcb" + struct.pack(">d", float("-inf")),
    "an integer key": b"\x81\x05\xa1v",
    "a nil key": b"\x81\xc0\xa1v",
    "a float key": b"\x81\xcb" + struct.pack(">d", 0.5) + b"\xa1v",
    "a bytes key": b"\x81\xc4\x01k\xa1v",
    "an array key": b"\x81\x92\x01\x02\xa1v",
    "a map key": b"\x81\x81\x01\x02\xa1v",
    "an unknown ext": b"\x81\xa1k\xd4\x2a\x01",
    "a long unknown ext": b"\x81\xa1k\xc7\x05\x2ahello",
    "a timestamp in nanoseconds": b"\x81\xa1k\xd7\xff"
    + struct.pack(">Q", (123456789 << 34) | 1700000000),
    "an event time in the record": b"\x81\xa1k\xd7\x00" + struct.pack(">II", 1700000000, 123456789),
    "the largest integer": b"\x81\xa1k\xcf" + b"\xff" * 8,
    "the smallest integer": b"\x81\xa1k\xd3\x80" + bytes(7),
    "deep nesting": b"\x81\xa1k" + deep(500),
    "deeper nesting": b"\x81\xa1k" + deep(5_000),
    "an empty record": b"\x80",
}


@pytest.mark.parametrize("mode", ["a filter that returns the record", "a predicate", "no filter"])
def test_odd_content_comes_out_byte_for_byte(rig, mode):
    filters = {
        "a filter that returns the record": ECHO,
        "a predicate": "@bridge.filter('ad.**')\ndef all_of_them(record: dict) -> bool:\n    return True\n",
        "no filter": "@bridge.filter('other')\ndef other(record: dict) -> dict:\n    return record\n",
    }[mode]
    running = rig(filters)
    moments = [
        b"\x01",
        b"\xd7\x00" + struct.pack(">II", 1, 2),
        b"\xc7\x08\x00" + struct.pack(">II", 1, 2),
    ]
    with Client("127.0.0.1", running.port) as client:
        for number, (name, record) in enumerate(ODD_RECORDS.items()):
            entries = b"".join(b"\x92" + moment + record for moment in moments)
            client.send_packed(f"ad.{number}", entries, len(moments))
            assert running.received.entries(f"ad.{number}") == entries, name
    assert not [tag for tag in running.received.chunks if tag.startswith("error")]


def test_a_filter_sees_what_can_be_decoded_and_harms_nothing_else(rig):
    running = rig(
        """
        @bridge.filter("ad.**")
        def add(record: dict) -> dict:
            record["seen"] = sorted(type(value).__name__ for value in record.values())
            return record
        """
    )
    with Client("127.0.0.1", running.port) as client:
        for number, record in enumerate(ODD_RECORDS.values()):
            client.send_packed(f"ad.{number}", b"\x92\x01" + record, 1)
    for number, (name, record) in enumerate(ODD_RECORDS.items()):
        (out,) = running.received.chunks[f"ad.{number}"]
        assert out.startswith(b"\x92\x01" + bytes([record[0] + 1]) + record[1:]), name
        assert b"\xa4seen" in out, name


def message(tag, entries, option):
    return msgpack.packb([tag, entries, option])


def exchange(port, data, wait=True):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(10)
        connection.sendall(data)
        answer = b""
        while wait and (part := connection.recv(65536)):
            answer += part
        return answer, connection.getsockname()[1]


@pytest.mark.parametrize(
    "chunk_id", [base64.b64encode(os.urandom(16)).decode() + "\n", "plain", b"\x00\xff\n", 7]
)
def test_an_ack_is_the_id_verbatim(rig, chunk_id):
    running = rig(ECHO)
    entries = codec.pack_entries([(1, {"id": 1})])
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        connection.sendall(message("ad.click", entries, {"chunk": chunk_id}))
        answer = connection.recv(512)
    assert msgpack.unpackb(answer) == {"ack": chunk_id}
    assert running.received.entries("ad.click") == entries


def test_no_ack_before_downstream_acknowledged(rig):
    running = rig(ECHO)
    running.sink.hold()
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        connection.settimeout(1)
        connection.sendall(message("ad.click", codec.pack_entries([(1, {})]), {"chunk": "a"}))
        with pytest.raises(TimeoutError):
            connection.recv(512)
        running.sink.release()
        connection.settimeout(10)
        assert msgpack.unpackb(connection.recv(512)) == {"ack": "a"}


def test_a_chunk_that_comes_again_is_not_processed_twice(rig):
    running = rig(ECHO)
    data = message("ad.click", codec.pack_entries([(1, {"id": 1})]), {"chunk": "again"})
    other = message("ad.click", codec.pack_entries([(1, {"id": 2})]), {"chunk": "again"})
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        connection.settimeout(10)
        for one in (data, data, other):
            connection.sendall(one)
            assert msgpack.unpackb(connection.recv(512)) == {"ack": "again"}
    # The same id on other events is not the same chunk.
    assert running.received.records("ad.click") == [{"id": 1}, {"id": 2}]
    assert running.sidecar.metrics()["fluent_bridge_duplicate_chunks_total"] == 1


def test_a_chunk_that_comes_again_after_a_restart_is_not_processed_twice(rig, tmp_path):
    running = rig(ECHO, delivery__window_file=tmp_path / "window")
    data = message("ad.click", codec.pack_entries([(1, {"id": 1})]), {"chunk": "again"})
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", running.port)) as connection:
            connection.settimeout(10)
            connection.sendall(data)
            assert msgpack.unpackb(connection.recv(512)) == {"ack": "again"}
        assert running.sidecar.stop() == 0
        running.sidecar.start()
    assert running.received.records("ad.click") == [{"id": 1}]


def test_a_chunk_that_comes_again_while_in_flight_is_processed_once(rig):
    running = rig(ECHO)
    running.sink.hold()
    data = message("ad.click", codec.pack_entries([(1, {"id": 1})]), {"chunk": "again"})
    connections = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(2)]
    for connection in connections:
        connection.settimeout(10)
        connection.sendall(data)
    connections[0].close()  # its sender gave up
    running.log("none", timeout=0.5)
    running.sink.release()
    assert msgpack.unpackb(connections[1].recv(512)) == {"ack": "again"}
    connections[1].close()
    assert running.received.records("ad.click") == [{"id": 1}]


def test_an_exception_costs_its_event_alone(rig):
    running = rig(
        """
        @bridge.filter("ad.**")
        def divide(record: dict) -> dict:
            record["touched"] = True
            record["share"] = 100 / record["parts"]
            return record

        @bridge.filter("ad.**")
        def check(record: dict) -> dict:
            if record["share"] > 50:
                raise bridge.Reject("more than half")
            return record
        """
    )
    with Client("127.0.0.1", running.port) as client:
        client.send("ad.click", [(7, {"parts": parts}) for parts in (4, 0, 1, 5)])
    assert [one["share"] for one in running.received.records("ad.click")] == [25, 20]
    dead = running.received.events("error.ad.click")
    assert [(moment, one["record"], one["tag"]) for moment, one in dead] == [
        (7, {"parts": 0}, "ad.click"),
        (7, {"parts": 1}, "ad.click"),
    ]
    division, rejection = (one["error"] for _, one in dead)
    assert (division["class"], division["message"], division["filter"], division["attempts"]) == (
        "ZeroDivisionError",
        "division by zero",
        "divide",
        1,
    )
    assert 'record["share"] = 100 / record["parts"]' in division["traceback"]
    assert (rejection["class"], rejection["message"], rejection["filter"]) == (
        "Reject",
        "more than half",
        "check",
    )


def test_retry_brings_the_chunk_again(rig, tmp_path):
    gate = tmp_path / "gate"
    running = rig(
        f"""
        import pathlib

        @bridge.filter("ad.**")
        def not_yet(record: dict) -> dict:
            if record["id"] == 3 and not pathlib.Path({str(gate)!r}).exists():
                raise bridge.Retry(0.1)
            return record
        """
    )
    with Client("127.0.0.1", running.port, window=2) as client:
        client.send("ad.click", [{"id": i} for i in range(5)])
        assert running.log("chunk is to come again", timeout=10)
        assert not running.received.chunks
        gate.touch()
        client.flush()
    assert [one["id"] for one in running.received.records("ad.click")] == list(range(5))


def test_a_chunk_is_handed_back_when_patience_ends(rig):
    running = rig(ECHO, delivery__patience=1, downstream__ack_timeout=1, workers__deadline=1)
    running.sink.hold()
    # A reset and not an end of file: Fluentd on Ruby 3.3 waits for ack_response_timeout after the latter.
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        connection.settimeout(10)
        port = connection.getsockname()[1]
        connection.sendall(
            message("ad.click", codec.pack_entries([(1, {"id": 1})]), {"chunk": "x"})
        )
        with pytest.raises(ConnectionResetError):
            connection.recv(512)
    (line,) = running.log("connection closed", timeout=5)
    assert line["kind"] == "handed back"
    assert line["peer"].endswith(f":{port}")
    assert line["tag"] == "ad.click"
    assert "could not be delivered within 1 s" in line["reason"]
    assert running.sidecar.metrics()["fluent_bridge_handed_back_chunks_total"] == 1


def test_a_killed_sidecar_resets_its_connections(rig):
    running = rig(ECHO)
    running.sink.hold()
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        connection.settimeout(10)
        connection.sendall(message("ad.click", codec.pack_entries([(1, {})]), {"chunk": "x"}))
        time.sleep(0.3)
        running.sidecar.kill()
        with pytest.raises(ConnectionResetError):
            connection.recv(512)


def test_downstream_comes_back(tmp_path):
    (tmp_path / "filters").mkdir()
    (tmp_path / "filters" / "f.py").write_text("import bridge\n" + ECHO)
    port = free_port()
    sidecar = Sidecar(
        tmp_path / "filters", tmp_path, {"downstream.port": port, "downstream.retry_max": 0.2}
    )
    sidecar.start()  # without downstream: Fluentd starts after its sidecar
    chunks = []

    def keep(chunk):
        chunks.append(bytes(chunk.entries))

    with Client("127.0.0.1", sidecar.port, window=8) as client:
        client.send("ad.click", [{"id": 1}])
        with Sink(keep, port=port):
            client.flush()
        time.sleep(0.3)
        assert not sidecar.ready()  # it was connected and is not any more
        client.send("ad.click", [{"id": 2}])
        with Sink(keep, port=port):
            client.flush()
            assert sidecar.ready()
    assert [[record for _, record in codec.decode_entries(entries)] for entries in chunks] == [
        [{"id": 1}],
        [{"id": 2}],
    ]
    assert sidecar.stop() == 0


BAD = {
    "not msgpack": (b"\xc1\xc1\xc1", "msgpack"),
    "JSON": (b'["ad.click", 1, {}]', "JSON"),
    "not a message": (msgpack.packb({"a": 1}), ""),
    "no event": (message("ad.click", b"\x01\x02", {"chunk": "x"}), ""),
    "a record that is no map": (message("ad.click", msgpack.packb([1, 2]), {"chunk": "x"}), ""),
    "cut short": (
        message("ad.click", codec.pack_entries([(1, {"id": 1})])[:-1], {"chunk": "x"}),
        "",
    ),
    "too large": (b"\x93\xa8ad.click\xc6" + (65 << 20).to_bytes(4, "big"), "limit"),
    "a gzip bomb": (
        message("ad.click", gzip.compress(bytes(1 << 24)), {"chunk": "x", "compressed": "gzip"}),
        "decompress",
    ),
    "broken gzip": (message("ad.click", b"\x1f\x8b\x08junk", {"compressed": "gzip"}), "gzip"),
    "unknown compression": (message("ad.click", b"", {"compressed": "lzma"}), "lzma"),
}


def test_bad_input_is_refused_with_its_peer_and_tag_and_neighbours_go_on(rig):
    running = rig(ECHO, workers__max_decompressed_bytes=1 << 20)
    with Client("127.0.0.1", running.port) as neighbour:
        for name, (data, word) in BAD.items():
            answer, port = exchange(running.port, data)
            assert answer == b"", name
            line = running.log("connection closed", timeout=5)[-1]
            assert line["kind"] == "protocol error", name
            assert line["peer"].endswith(f":{port}"), name
            assert word.lower() in line["reason"].lower(), (name, line)
            if b"ad.click" in data and name != "JSON":
                assert line["tag"] == "ad.click", (name, line)
            neighbour.send("ad.neighbour", [{"name": name}])
    assert [one["name"] for one in running.received.records("ad.neighbour")] == list(BAD)
    assert set(running.received.chunks) == {"ad.neighbour"}


def test_heartbeats_are_answered_and_not_worth_a_line(rig):
    running = rig(ECHO)
    for _ in range(5):
        socket.create_connection(("127.0.0.1", running.port)).close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(5)
        udp.sendto(b"\0", ("127.0.0.1", running.port))
        assert udp.recv(16) == b"\0"
    assert not running.log("connection closed")


def test_sigterm_drains(rig, tmp_path):
    gate = tmp_path / "gate"
    running = rig(GATED.format(gate=str(gate)))
    done = []

    def send():
        with Client("127.0.0.1", running.port, timeout=30) as client:
            client.send("ad.click", [{"id": 1}])
            done.append(True)

    sender = threading.Thread(target=send)
    sender.start()
    time.sleep(0.5)
    os.kill(running.sidecar.pid, signal.SIGTERM)
    assert running.log("draining", timeout=5)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", running.port), timeout=1)
    assert not running.sidecar.ready()
    gate.touch()
    sender.join()
    assert done
    assert running.received.records("ad.click") == [{"id": 1}]
    assert running.sidecar.stop() == 0


def test_sigterm_hands_back_what_takes_too_long(rig):
    running = rig(ECHO, shutdown__grace=0.5)
    running.sink.hold()
    client = Client("127.0.0.1", running.port, window=2, timeout=20)
    client.send("ad.click", [{"id": 1}])
    time.sleep(0.3)
    began = time.monotonic()
    assert running.sidecar.stop() == 0
    assert time.monotonic() - began < 10
    with pytest.raises(ConnectionLost):
        client.flush()


def test_shared_key_users_both_ways(rig):
    running = rig(
        ECHO,
        auth=ServerAuth(shared_key="down", hostname="sink", users={}),
        listen__shared_key="up",
        listen__users='{"alice": "secret"}',
        listen__hostname="sidecar",
        downstream__shared_key="down",
        downstream__hostname="sidecar",
    )
    with Client(
        "127.0.0.1",
        running.port,
        shared_key="up",
        username="alice",
        password="secret",
        hostname="me",
    ) as client:
        client.send("ad.click", [{"id": 1}])
    assert running.received.records("ad.click") == [{"id": 1}]
    for wrong in (
        {"shared_key": "wrong", "username": "alice", "password": "secret"},
        {"shared_key": "up", "username": "alice", "password": "wrong"},
        {"shared_key": "up", "username": "mallory", "password": "secret"},
    ):
        with (
            pytest.raises(AuthenticationError),
            Client("127.0.0.1", running.port, hostname="me", **wrong) as client,
        ):
            client.send("ad.click", [{"id": 2}])
        assert running.log("connection closed", timeout=5)[-1]["kind"] == "protocol error"
    data = message("ad.click", codec.pack_entries([(1, {})]), {"chunk": "x"})
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        connection.settimeout(10)
        connection.sendall(data)
        assert b"ack" not in connection.makefile("rb").read().replace(b"HELO", b"")
    assert len(running.received.records("ad.click")) == 1
