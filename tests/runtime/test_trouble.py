"""Downstream that hangs or refuses, senders that misbehave, shutdown in the wrong moment."""

import contextlib
import gzip
import os
import signal
import socket
import threading
import time

import msgpack
import psutil
import pytest

from bridge.errors import DeliveryError
from bridge.forward import Client, codec
from bridge.local.processes import ProgramError, free_port
from bridge.local.sidecar import Sidecar
from bridge.local.sink import Sink

MIB = 1 << 20

ECHO = """
@bridge.filter("ad.**")
def same(record: dict) -> dict:
    return record
"""


def message(tag, entries, option):
    return msgpack.packb([tag, entries, option])


def raw(port, data=b""):
    connection = socket.create_connection(("127.0.0.1", port))
    connection.settimeout(20)
    connection.sendall(data)
    return connection


def wait_until(condition, timeout=20):
    ends = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.05)


def test_a_downstream_that_loses_chunks_is_given_up_and_used_again(rig):
    running = rig(
        ECHO,
        downstream__ack_timeout=1,
        downstream__window=1,
        downstream__connections=1,
        delivery__patience=1,
        workers__deadline=1,
    )
    running.sink.hold()
    entries = codec.pack_entries([(1, {"id": 1})])
    for number in range(3):  # more than the windows hold, and each outlives its sender's patience
        with raw(running.port, message("ad.click", entries, {"chunk": str(number)})) as one:
            with pytest.raises(ConnectionResetError):
                one.recv(512)
    running.sink.release()
    for number in range(3):
        with raw(running.port, message("ad.click", entries, {"chunk": str(number)})) as one:
            assert msgpack.unpackb(one.recv(512)) == {"ack": str(number)}
    # Each was processed once: what came again got the outcome of the first.
    assert running.sidecar.metrics()["fluent_bridge_received_events_total"] == 3


def test_a_downstream_that_refuses_each_chunk_is_not_hammered(rig):
    running = rig(ECHO)
    real_take = running.sink._take
    refusals = []

    def refuse(chunk):
        refusals.append(chunk.tag)
        raise DeliveryError("the buffer is full")

    running.sink._take = refuse
    with Client("127.0.0.1", running.port, window=2, timeout=30) as client:
        client.send("ad.click", [{"id": 1}])
        time.sleep(2)
        assert 2 <= len(refusals) < 20
        assert not running.received.chunks
        running.sink._take = real_take
        client.flush()
    assert running.received.records("ad.click") == [{"id": 1}]


def test_the_error_stream_has_to_be_delivered_too(rig):
    running = rig("@bridge.filter('ad.**')\ndef bad(record: dict) -> dict:\n    return 1 / 0\n")
    running.sink.hold()
    with raw(
        running.port, message("ad.click", codec.pack_entries([(1, {})]), {"chunk": "a"})
    ) as one:
        one.settimeout(1)
        with pytest.raises(TimeoutError):
            one.recv(512)
        running.sink.release()
        one.settimeout(10)
        assert msgpack.unpackb(one.recv(512)) == {"ack": "a"}
    assert running.received.counts["error.ad.click"] == 1


def test_many_hanging_events_in_one_chunk_get_through_all_the_same(rig):
    running = rig(
        """
        import time

        @bridge.filter("ad.**")
        def hang(record: dict) -> dict:
            if record["id"] % 25 == 0:
                time.sleep(3600)
            return record
        """,
        workers__deadline=0.5,
        delivery__patience=2,
        downstream__ack_timeout=2,
    )
    data = message(
        "ad.click", codec.pack_entries([(1, {"id": i}) for i in range(100)]), {"chunk": "h"}
    )
    for _ in range(20):
        with raw(running.port, data) as one:
            try:
                assert msgpack.unpackb(one.recv(512)) == {"ack": "h"}
                break
            except ConnectionResetError:
                continue
    else:
        pytest.fail("the chunk never got through")
    assert [one["id"] for one in running.received.records("ad.click")] == [
        i for i in range(100) if i % 25
    ]
    assert running.received.counts["error.ad.click"] == 4


def test_the_bound_holds_for_what_is_compressed(rig, figures):
    bound = 64 * MIB
    running = rig(ECHO, delivery__bytes_in_flight=bound)
    running.received.keep = False
    running.sink.hold()
    transport = psutil.Process(running.sidecar.pid)
    before = transport.memory_info().rss
    entries = codec.pack_entries([(1, {"id": i, "padding": "x" * 10_000}) for i in range(800)])
    body = gzip.compress(entries)
    chunks = 80  # of 8 MiB
    connections = [
        raw(
            running.port,
            message(f"ad.{n}", body, {"chunk": str(n), "compressed": "gzip", "size": 800}),
        )
        for n in range(chunks)
    ]
    time.sleep(4)
    peak = transport.memory_info().rss - before
    figures(
        f"{len(body) * chunks >> 10} KiB stand for {len(entries) * chunks >> 20} MiB: grown by {peak >> 20} MiB"
    )
    running.sink.release()
    for number, connection in enumerate(connections):
        assert msgpack.unpackb(connection.recv(512)) == {"ack": str(number)}
        connection.close()
    assert sum(running.received.counts.values()) == chunks * 800
    assert peak < bound + 100 * MIB


def test_the_bound_holds_for_messages_of_unannounced_size(rig, figures):
    bound = 64 * MIB
    running = rig(ECHO, delivery__bytes_in_flight=bound, listen__receive_timeout=3)
    transport = psutil.Process(running.sidecar.pid)
    before = transport.memory_info().rss
    unfinished = (
        b"\x93\xa8ad.click\xdd\x00\x01\x00\x00"
        + (b"\x92\x01\x81\xa1k\xda\x40\x00" + b"x" * 0x4000) * 3000
    )
    connections = []

    def stuff():
        connection = socket.create_connection(("127.0.0.1", running.port))
        connections.append(connection)
        try:
            connection.settimeout(2)
            connection.sendall(unfinished)
        except OSError:
            pass

    threads = [threading.Thread(target=stuff) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    peak = transport.memory_info().rss - before
    figures(f"8 x {len(unfinished) >> 20} MiB offered: grown by {peak >> 20} MiB")
    assert peak < bound + 100 * MIB
    # The neighbour is served as soon as the time of those messages is over.
    with Client("127.0.0.1", running.port, timeout=30) as client:
        client.send("ad.neighbour", [{"id": 1}])
    assert running.received.records("ad.neighbour") == [{"id": 1}]
    for connection in connections:
        connection.close()
    wait_until(lambda: running.sidecar.metrics()["fluent_bridge_in_flight_bytes"] == 0)


def test_messages_without_entries_cost_nothing_for_long(rig):
    running = rig(ECHO, delivery__bytes_in_flight=64 * MIB)
    with raw(running.port, message("ad.click", b"", {}) * 9_000):
        with Client("127.0.0.1", running.port, timeout=30) as client:
            client.send("ad.click", [{"id": 1}])
    with raw(running.port, b"\x93\xa1t\xc6\x00\x00\x00\x00"):
        pass
    wait_until(lambda: running.sidecar.metrics()["fluent_bridge_in_flight_bytes"] == 0)


def test_a_message_that_never_ends_is_closed(rig):
    running = rig(ECHO, listen__receive_timeout=1)
    with raw(running.port, b"\x93\xa8ad.click\xc6\x00\x00\x10\x00abc") as one:
        assert one.recv(1) == b""
    (line,) = running.log("connection closed", timeout=5)
    assert (line["kind"], line["tag"]) == ("timeout", "ad.click")
    assert running.sidecar.metrics()["fluent_bridge_in_flight_bytes"] == 0


def test_a_peer_that_does_not_read_its_acks_is_not_read_either(rig):
    running = rig(ECHO, listen__receive_timeout=2)
    running.received.keep = False
    data = message("ad.click", codec.pack_entries([(1, {})]), {"chunk": "x" * 60_000})
    with raw(running.port) as one:
        one.settimeout(10)
        with pytest.raises(OSError):
            for _ in range(2_000):
                one.sendall(data)
    line = running.log("connection closed", timeout=5)[-1]
    assert line["kind"] == "timeout"
    assert "did not read its acknowledgements" in line["reason"]


def test_sigterm_is_obeyed_in_time_though_a_worker_is_busy(rig):
    running = rig(
        "import time\n\n@bridge.filter('**')\ndef slow(record: dict) -> dict:\n    time.sleep(60)\n",
        shutdown__grace=1,
    )
    with raw(
        running.port, message("ad.click", codec.pack_entries([(1, {})]), {"chunk": "a"})
    ) as one:
        time.sleep(0.5)
        began = time.monotonic()
        assert running.sidecar.stop() == 0
        assert time.monotonic() - began < 6
        with pytest.raises(ConnectionResetError):
            one.recv(512)


def test_sigterm_is_obeyed_while_filters_load(tmp_path):
    (tmp_path / "filters").mkdir()
    (tmp_path / "filters" / "slow.py").write_text("import time\ntime.sleep(60)\n")
    sidecar = Sidecar(tmp_path / "filters", tmp_path)

    def start():
        with pytest.raises(ProgramError):
            sidecar.start()

    starter = threading.Thread(target=start)
    starter.start()
    wait_until(lambda: sidecar._program._process and _answers(sidecar.admin))
    time.sleep(0.5)
    began = time.monotonic()
    os.kill(sidecar.pid, signal.SIGTERM)
    starter.join()
    assert time.monotonic() - began < 6


def _answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("filters", "settings", "words"),
    [
        ("import nothing_like_that\n", {}, ["broken.py:1", "nothing_like_that"]),
        ("import bridge\n@bridge.filter\ndef f(record): ...\n", {}, ["broken.py:2", "pattern"]),
        ("import os\nos._exit(7)\n", {}, ["exit code 7"]),
        (
            "import bridge\n@bridge.filter('a')\ndef f(record): ...\n",
            {"listen.host": "192.0.2.1"},
            ["listen.host"],
        ),
    ],
    ids=["import", "decorator", "exit", "address"],
)
def test_what_keeps_it_from_starting_is_said(tmp_path, filters, settings, words):
    (tmp_path / "filters").mkdir()
    (tmp_path / "filters" / "broken.py").write_text(filters)
    sidecar = Sidecar(tmp_path / "filters", tmp_path, settings)
    with pytest.raises(ProgramError, match="status 2"):
        sidecar.start()
    said = str([line for line in sidecar.log() if line.get("level") == "error"])
    assert all(word in said for word in words), said


def test_a_failed_tls_handshake_has_its_line_and_idle_peers_do_not_delay_the_end(rig, certificates):
    from bridge.forward import tls_context

    running = rig(
        ECHO,
        listen__tls_cert_file=certificates / "server.pem",
        listen__tls_key_file=certificates / "server.pem",
        listen__tls_client_ca_file=certificates / "ca.pem",
        listen__receive_timeout=5,
    )
    own = tls_context(
        ca_file=certificates / "ca.pem",
        cert_file=certificates / "client.pem",
        key_file=certificates / "client.pem",
    )
    with raw(running.port, b"\x93no TLS at all") as one:
        port = one.getsockname()[1]
        with contextlib.suppress(ConnectionResetError):
            one.recv(512)
    (line,) = running.log("connection closed", timeout=8)
    assert line["peer"].endswith(f":{port}")
    assert line["reason"].startswith("no TLS")
    with Client("127.0.0.1", running.port, tls=own) as client:
        client.send("ad.click", [{"id": 1}])
        assert running.received.records("ad.click") == [{"id": 1}]
        began = time.monotonic()
        assert running.sidecar.stop() == 0
        assert time.monotonic() - began < 10


def test_a_bad_certificate_is_said_at_start(tmp_path):
    (tmp_path / "filters").mkdir()
    (tmp_path / "filters" / "f.py").write_text("import bridge\n" + ECHO)
    (tmp_path / "bad.pem").write_text("no certificate")
    sidecar = Sidecar(
        tmp_path / "filters",
        tmp_path,
        {"listen.tls_cert_file": tmp_path / "bad.pem", "listen.tls_key_file": tmp_path / "bad.pem"},
    )
    with pytest.raises(ProgramError, match="status 2"):
        sidecar.start()
    assert "listen.tls_cert_file" in str(sidecar.log())


def test_a_host_that_cannot_be_a_host_is_said_and_does_not_stop_the_attempts(tmp_path):
    (tmp_path / "filters").mkdir()
    (tmp_path / "filters" / "f.py").write_text("import bridge\n" + ECHO)
    sidecar = Sidecar(tmp_path / "filters", tmp_path, {"downstream.host": "x" * 70})
    sidecar.start()
    wait_until(lambda: any(line["event"] == "downstream not connected" for line in sidecar.log()))
    assert sidecar.stop() == 0


@pytest.mark.timeout(120)
def test_a_downstream_that_accepts_and_closes_is_asked_with_pauses(tmp_path):
    (tmp_path / "filters").mkdir()
    (tmp_path / "filters" / "f.py").write_text("import bridge\n" + ECHO)
    port = free_port()
    accepted = []
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(0.1)
        sidecar = Sidecar(tmp_path / "filters", tmp_path, {"downstream.port": port})
        sidecar.start()
        ends = time.monotonic() + 4
        while time.monotonic() < ends:
            try:
                listener.accept()[0].close()
                accepted.append(time.monotonic())
            except TimeoutError:
                pass
    assert 2 <= len(accepted) < 40
    chunks = []
    with Sink(chunks.append, port=port), Client("127.0.0.1", sidecar.port) as client:
        client.send("ad.click", [{"id": 1}])
    assert len(chunks) == 1
    assert sidecar.stop() == 0


def test_what_lost_its_sender_is_not_delivered_while_the_sidecar_ends(rig):
    # Its sender sends it again, to the next process: delivered by both it would come out twice.
    running = rig(ECHO, downstream__window=1, downstream__connections=1, shutdown__grace=10)
    running.sink.hold()
    entries = codec.pack_entries([(1, {"id": 1})])
    for number in range(4):
        raw(running.port, message(f"ad.{number}", entries, {"chunk": str(number)})).close()
    waiting = raw(running.port, message("ad.waiting", entries, {"chunk": "w"}))
    wait_until(lambda: running.sidecar.metrics()["fluent_bridge_received_chunks_total"] == 5)
    time.sleep(0.3)
    os.kill(running.sidecar.pid, signal.SIGTERM)
    assert running.log("draining", timeout=5)
    running.sink.release()
    assert msgpack.unpackb(waiting.recv(512)) == {"ack": "w"}
    waiting.close()
    assert running.sidecar.stop() == 0
    # One of them was on its way already.
    assert set(running.received.counts) <= {"ad.waiting", "ad.0", "ad.1", "ad.2", "ad.3"}
    assert len(running.received.counts) <= 2


def test_a_chunk_is_rescued_though_the_room_is_full(rig):
    # The results of its first pieces are held, and must not keep its last ones from being run.
    running = rig(
        """
        import os

        @bridge.filter("ad.**")
        def grow(record: dict) -> list[dict]:
            if record["id"] == 150:
                os._exit(1)
            return [dict(record, copy=n) for n in range(8)]
        """,
        workers__count=1,
        listen__max_message_bytes=MIB,
        delivery__bytes_in_flight=MIB,
    )
    running.received.keep = False
    events = [{"id": i, "padding": "x" * 1000} for i in range(300)]
    with Client("127.0.0.1", running.port, window=16, timeout=50) as client:
        for number in range(12):
            client.send(f"ad.{number}", events[: 300 if number == 0 else 100])
        client.flush()
    assert running.received.counts["ad.0"] == 299 * 8
    assert running.received.counts["error.ad.0"] == 1
    assert sum(running.received.counts.values()) == 299 * 8 + 1 + 11 * 800
    wait_until(lambda: running.sidecar.metrics()["fluent_bridge_in_flight_bytes"] == 0)


def test_what_wants_no_ack_is_delivered_before_the_end(rig):
    running = rig(ECHO)
    running.sink.hold()
    with Client("127.0.0.1", running.port, acks=False) as client:
        client.send("ad.click", [{"id": i} for i in range(4)])
    wait_until(lambda: running.sidecar.metrics()["fluent_bridge_received_chunks_total"] == 1)
    os.kill(running.sidecar.pid, signal.SIGTERM)
    assert running.log("draining", timeout=5)
    time.sleep(0.5)
    running.sink.release()
    assert running.sidecar.stop() == 0
    assert running.received.counts == {"ad.click": 4}


def test_what_nobody_wants_any_more_is_given_up(rig):
    running = rig(
        "@bridge.filter('ad.**')\ndef never(record: dict) -> dict:\n    raise bridge.Retry(0.2)\n",
        delivery__patience=1,
        downstream__ack_timeout=1,
        workers__deadline=1,
    )
    with raw(
        running.port, message("ad.click", codec.pack_entries([(1, {})]), {"chunk": "a"})
    ) as one:
        with pytest.raises(ConnectionResetError):
            one.recv(512)
    wait_until(lambda: running.sidecar.metrics()["fluent_bridge_in_flight_bytes"] == 0)
