"""Fifty reloads while a million events pass."""

import statistics
import threading
import time

import msgspec
import pytest

from bridge.forward import Client, codec
from bridge.local.sidecar import Sidecar
from bridge.local.sink import Sink

EVENTS = 1_000_000
CHUNK = 1_000
RELOADS = 50
FILTER = """
import bridge

VERSION = {}

@bridge.filter("ad.**")
def stamp(record: dict) -> dict:
    record["v"] = VERSION
    return record
"""


class Record(msgspec.Struct):
    id: int
    v: int


class Counted:
    """Takes chunks: how often each id came, and by which versions of the filter."""

    def __init__(self):
        self.times = bytearray(EVENTS)
        self.chunks = []  # the versions that each was made by
        self.newest = threading.Condition()
        self._decode = msgspec.msgpack.Decoder(list[tuple[msgspec.Raw, Record]]).decode

    def __call__(self, chunk):
        # Packed entries are the body of an array whose head is left out.
        head = b"\xdd" + chunk.count.to_bytes(4, "big")
        records = [record for _, record in self._decode(head + chunk.entries)]
        for record in records:
            self.times[record.id] += 1
        with self.newest:
            self.chunks.append({record.v for record in records})
            self.newest.notify_all()

    def wait_for(self, version, timeout):
        """Return whether a chunk that this version made has come in time."""
        with self.newest:
            return self.newest.wait_for(lambda: {version} in self.chunks[-20:], timeout)


@pytest.mark.timeout(300)
def test_fifty_reloads_while_a_million_events_pass(tmp_path, figures):
    folder = tmp_path / "filters"
    folder.mkdir()
    file = folder / "stamp.py"
    file.write_text(FILTER.format(0))
    counted = Counted()
    took, sent = [], 0
    with Sink(counted) as sink:
        settings = {
            "downstream.port": sink.port,
            "workers.count": 2,
            "filters.reload_interval": 0.05,
        }
        sidecar = Sidecar(folder, tmp_path, settings)
        sidecar.start()
        try:
            with Client("127.0.0.1", sidecar.port, window=8) as client:

                def send(chunks):
                    nonlocal sent
                    for _ in range(min(chunks, (EVENTS - sent) // CHUNK)):
                        events = [(1, {"id": number}) for number in range(sent, sent + CHUNK)]
                        client.send_packed("ad.click", codec.pack_entries(events), CHUNK)
                        sent += CHUNK

                for version in range(1, RELOADS + 1):
                    began = time.monotonic()
                    if version % 2:
                        (folder / ".stamp.py").write_text(FILTER.format(version))
                        (folder / ".stamp.py").replace(file)
                    else:
                        file.write_text(FILTER.format(version))
                    # Its share of the events is under way as it loads, but for one chunk at a time
                    # that shows whether it has taken over.
                    send(EVENTS // CHUNK // RELOADS - 8)
                    while not counted.wait_for(version, 0.5):
                        assert time.monotonic() < began + 60, "it never took over"
                        send(1)
                    took.append(time.monotonic() - began)
                send(EVENTS)
                client.flush()
            metrics = sidecar.metrics()
        finally:
            assert sidecar.stop() == 0
    assert sent == EVENTS
    assert counted.times.count(1) == EVENTS, "each id came, and came once"
    assert {len(versions) for versions in counted.chunks} == {1}, "a chunk is of one version"
    assert counted.chunks[-1] == {RELOADS}
    assert metrics["fluent_bridge_filter_reloads_total{result=ok}"] == RELOADS
    assert not metrics.get("fluent_bridge_retried_chunks_total")
    figures(
        f"{RELOADS} reloads while {EVENTS:,} events passed in {sum(took):.0f} s:"
        f" {statistics.median(took):.2f} s from a file's change to its first result, worst"
        f" {max(took):.2f} s"
    )
