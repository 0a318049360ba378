"""A sidecar in processes of its own, between this test and a sink in a thread of it."""

from __future__ import annotations

import textwrap
import threading
import time
from collections import defaultdict

import pytest

from bridge.forward import codec
from bridge.local.sidecar import Sidecar
from bridge.local.sink import Sink


class Received:
    """What came out of a sidecar: chunks by tag, in the order in which they came."""

    def __init__(self):
        self.chunks = defaultdict(list)
        self.counts = defaultdict(int)
        self.keep = True
        self._changed = threading.Condition()

    def __call__(self, chunk):
        with self._changed:
            if self.keep:
                self.chunks[chunk.tag].append(bytes(chunk.entries))
            self.counts[chunk.tag] += chunk.count
            self._changed.notify_all()

    def entries(self, tag):
        return b"".join(self.chunks[tag])

    def events(self, tag):
        return codec.decode_entries(self.entries(tag))

    def records(self, tag):
        return [record for _, record in self.events(tag)]

    def wait_for(self, condition, timeout=30.0):
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self), timeout), dict(self.counts)


class Rig:
    """A sidecar, the sink behind it, and what came out."""

    def __init__(self, sidecar, sink, received, folder):
        self.sidecar = sidecar
        self.sink = sink
        self.received = received
        self.port = sidecar.port
        self.folder = folder  # of its filters

    def log(self, event=None, timeout=0.0):
        """Return the log's lines with this event; wait for one for so many seconds."""
        ends = time.monotonic() + timeout
        while True:
            lines = [line for line in self.sidecar.log() if event in (None, line["event"])]
            if lines or time.monotonic() > ends:
                return lines
            time.sleep(0.05)


@pytest.fixture
def rig(tmp_path):
    """Return a function: the text of a filter file and settings → a running Rig."""
    rigs = []

    def start(filters, *, auth=None, **settings):
        folder = tmp_path / f"filters{len(rigs)}"
        folder.mkdir()
        (folder / "filters.py").write_text("import bridge\n" + textwrap.dedent(filters))
        received = Received()
        sink = Sink(received, auth=auth).__enter__()
        chosen = {"downstream.port": sink.port, "workers.count": 2} | {
            name.replace("__", "."): value for name, value in settings.items()
        }
        sidecar = Sidecar(folder, tmp_path / f"log{len(rigs)}", chosen)
        rigs.append((sidecar, sink))
        sidecar.start()
        return Rig(sidecar, sink, received, folder)

    yield start
    for sidecar, sink in rigs:
        sink.release()
        status = sidecar.stop() if sidecar.running else 0
        sink.__exit__()
        assert status == 0, sidecar.log()[-5:]
