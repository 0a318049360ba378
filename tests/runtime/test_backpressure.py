"""Downstream away: memory stays bounded, nothing is lost."""

import threading
import time
from collections import Counter

import msgspec
import psutil
import pytest

from bridge.forward import Client, codec
from bridge.local.processes import free_port
from bridge.local.sidecar import Sidecar
from bridge.local.sink import Sink

MIB = 1 << 20
BOUND = 64 * MIB
AWAY = 60  # seconds
OFFERED = 1 << 30  # bytes
SENDERS = 4
EVENTS_A_CHUNK = 1_000


@pytest.mark.timeout(240)
def test_downstream_away_for_a_minute_with_a_gigabyte_offered(tmp_path, figures):
    (tmp_path / "filters").mkdir()
    (tmp_path / "filters" / "mark.py").write_text(
        "import bridge\n\n@bridge.filter('**')\ndef mark(record: dict) -> dict:\n"
        "    record['marked'] = True\n    return record\n"
    )
    port = free_port()
    sidecar = Sidecar(
        tmp_path / "filters",
        tmp_path,
        {"downstream.port": port, "delivery.bytes_in_flight": BOUND, "workers.count": 2},
    )
    sidecar.start()
    body = codec.pack_entries([(1, {"n": i, "padding": "x" * 1000}) for i in range(EVENTS_A_CHUNK)])
    chunks = OFFERED // len(body) + 1
    ended = threading.Event()
    peak = {"transport": 0, "all": 0}
    errors = []

    def watch():
        transport = psutil.Process(sidecar.pid)
        while not ended.wait(0.2):
            own = transport.memory_info().rss
            workers = sum(worker.memory_info().rss for worker in transport.children())
            peak["transport"] = max(peak["transport"], own)
            peak["all"] = max(peak["all"], own + workers)

    def send(first):
        try:
            with Client("127.0.0.1", sidecar.port, window=64, timeout=200) as client:
                for number in range(first, chunks, SENDERS):
                    client.send_packed(f"ad.{number}", body, EVENTS_A_CHUNK)
                client.flush()
        except Exception as error:
            errors.append(error)

    transport = psutil.Process(sidecar.pid)
    before = transport.memory_info().rss + sum(
        worker.memory_info().rss for worker in transport.children()
    )
    threads = [threading.Thread(target=watch)]
    threads += [threading.Thread(target=send, args=(first,)) for first in range(SENDERS)]
    for thread in threads:
        thread.start()
    time.sleep(AWAY)
    assert sidecar.metrics()["fluent_bridge_emitted_events_total"] == 0
    assert sidecar.metrics()["fluent_bridge_in_flight_bytes"] > BOUND * 0.8  # the bound was reached
    counts = Counter()
    count_marked = msgspec.msgpack.Decoder(list[tuple[int, dict]])

    def take(chunk):
        header = b"\xdd" + chunk.count.to_bytes(4, "big")
        counts[chunk.tag] += sum(
            record["marked"] for _, record in count_marked.decode(header + chunk.entries)
        )

    with Sink(take, port=port):
        for thread in threads[1:]:
            thread.join()
        ended.set()
        threads[0].join()
        status = sidecar.stop()
    figures(
        f"downstream away {AWAY} s, {OFFERED >> 20} MiB offered: peak memory: transport {peak['transport'] / MIB:.0f} MiB,"
        f" all {peak['all'] / MIB:.0f} MiB, before {before / MIB:.0f} MiB; bound {BOUND / MIB:.0f} MiB"
    )
    assert not errors
    assert status == 0
    assert counts == {f"ad.{number}": EVENTS_A_CHUNK for number in range(chunks)}
    assert peak["transport"] < BOUND + 100 * MIB
    assert peak["all"] - before < BOUND + 100 * MIB
