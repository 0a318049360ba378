"""Hostile bytes: a million mutated messages."""

import os
import random
import socket
import threading
import time

import msgpack
import psutil
import pytest

from bridge.forward import Client, codec

MESSAGES = int(os.environ.get("BRIDGE_TEST_HOSTILE_MESSAGES", "1000000"))
PER_CONNECTION = 6
MIB = 1 << 20

FILTERS = """
@bridge.filter("ad.**")
def mark(record: dict) -> dict:
    record["marked"] = True
    return record
"""


def templates():
    entries = codec.pack_entries([(1, {"id": i, "url": "http://a.example/"}) for i in range(3)])
    option = {"chunk": "p8n9gmxTQVC8/nh2wlKKeQ==\n", "size": 3}
    pack = msgpack.packb
    return [
        pack(["ad.click", 1, {"id": 1}, {"chunk": "m"}]),
        pack(["ad.click", [[1, {"id": 1}], [msgpack.ExtType(0, bytes(8)), {"id": 2}]], option]),
        pack(["ad.click", entries, option]),
        pack(["ad.click", bytes(codec.compress(entries, "gzip")), option | {"compressed": "gzip"}]),
        pack(["ad.click", bytes(codec.compress(entries, "zstd")), option | {"compressed": "zstd"}]),
        pack(None),
    ]


def mutate(rng, message):
    message = bytearray(message)
    kind = rng.random()
    if kind < 0.5:  # flip
        for _ in range(rng.choice((1, 1, 2, 5))):
            message[rng.randrange(len(message))] = rng.randrange(256)
    elif kind < 0.65:  # cut out
        start = rng.randrange(len(message))
        del message[start : start + rng.randrange(1, 9)]
    elif kind < 0.8:  # put in
        at = rng.randrange(len(message))
        message[at:at] = rng.randbytes(rng.randrange(1, 9))
    elif kind < 0.9:  # a length of its own
        at = rng.randrange(len(message))
        message[at : at + 1] = bytes([rng.choice((0xC6, 0xDB, 0xDD, 0xDF, 0xC9))]) + rng.randbytes(
            4
        )
    elif kind < 0.95:  # truncate
        del message[rng.randrange(len(message)) :]
    else:  # nest
        message = bytearray(b"\x91" * rng.randrange(1, 3000)) + message
    return message


def attack(port, seed, messages, peers):
    rng = random.Random(seed)
    kinds = templates()
    sent = 0
    while sent < messages:
        batch = [
            mutate(rng, rng.choice(kinds)) for _ in range(min(PER_CONNECTION, messages - sent))
        ]
        rng.random() < 0.5 and batch.insert(0, rng.choice(kinds))
        sent += len(batch)
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.settimeout(30)
            peers.add("{}:{}".format(*connection.getsockname()))
            try:
                connection.sendall(b"".join(batch))
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
            except TimeoutError:
                raise
            except OSError:  # closed, or reset
                pass


@pytest.mark.timeout(900)
def test_a_million_mutated_messages(rig, figures):
    # The window of recent chunks grows to its size: here it is full before memory is looked at.
    running = rig(FILTERS, listen__receive_timeout=10, delivery__recent_chunks=1000)
    running.received.keep = False
    transport = psutil.Process(running.sidecar.pid)
    workers = transport.children()
    peers = set()
    # The allocator keeps what a first wave made it take: growth is what comes after.
    attack(running.port, "warm up", MESSAGES // 5, peers)
    before = transport.memory_info().rss
    before_workers = sum(worker.memory_info().rss for worker in workers)
    ended = threading.Event()
    neighbour = {"sent": 0}

    def behave():
        with Client("127.0.0.1", running.port, timeout=60) as client:
            while not ended.wait(0.01):
                client.send("neighbour", [{"id": 1}] * 10)  # returns when it is acknowledged
                neighbour["sent"] += 10

    polite = threading.Thread(target=behave)
    polite.start()
    attackers = [
        threading.Thread(target=attack, args=(running.port, seed, MESSAGES * 2 // 5, peers))
        for seed in range(2)
    ]
    for thread in attackers:
        thread.start()
    for thread in attackers:
        thread.join()
    ended.set()
    polite.join()
    grown = transport.memory_info().rss - before
    grown_workers = sum(worker.memory_info().rss for worker in workers) - before_workers
    ends = time.monotonic() + 10
    while (metrics := running.sidecar.metrics())["fluent_bridge_in_flight_bytes"]:
        assert time.monotonic() < ends, "bytes were reserved and not given back"
        time.sleep(0.1)
    errors = metrics["fluent_bridge_connections_closed_total{reason=protocol error}"]
    lines = [line for line in running.log("connection closed") if line["kind"] == "protocol error"]
    figures(
        f"{MESSAGES} messages on {len(peers)} connections, {errors:.0f} closed with a reason,"
        f" {neighbour['sent']} events of the neighbour served, grown by {grown / MIB:.1f} MiB"
        f" and {grown_workers / MIB:.1f} MiB in the workers"
    )
    assert running.sidecar.running
    assert {worker.pid for worker in workers} == set(running.sidecar.worker_pids)
    assert metrics.get("fluent_bridge_worker_restarts_total", 0) == 0
    assert len(lines) == errors > MESSAGES / PER_CONNECTION / 4
    assert all(line["peer"] in peers and line["reason"] for line in lines)
    assert not [line for line in running.log() if line.get("level") == "error"]
    assert neighbour["sent"] > 0
    assert running.received.counts["neighbour"] == neighbour["sent"]
    assert grown < 24 * MIB
    assert grown_workers < 16 * MIB
