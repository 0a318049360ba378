"""What reloading costs those that serve: throughput while filters reload, one time after the other.

    python -m benchmarks.reload [--seconds 5] [--rounds 5] [--workers 2]

A sender, the sidecar and a sink, each in processes of their own on this machine, as many events as
pass. Runs without a reload and runs in which one follows the other alternate: only ratios of the
same run mean something.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Self

from benchmarks.hop import EVENTS_A_CHUNK, FILTER, WINDOW, events
from bridge.cpu import cpu_quota
from bridge.forward import Client
from bridge.forward.codec import pack_entries
from bridge.local.processes import Program, free_port, listening
from bridge.local.sidecar import Sidecar

_DONE = "fluent_bridge_filter_reloads_total{result=ok}"


class Reloading:
    """Has a sidecar reload all the time, meanwhile."""

    def __init__(self, sidecar: Sidecar, file: Path) -> None:
        self._sidecar = sidecar
        self._file = file
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.times: list[float] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        for number in itertools.count():
            began = time.perf_counter()
            before = self._sidecar.metrics()[_DONE]
            self._file.write_text(f"{FILTER}\n# {number}\n")
            os.kill(self._sidecar.pid, signal.SIGHUP)
            while self._sidecar.metrics()[_DONE] == before:
                if self._ended.wait(0.1):
                    return
            self.times.append(time.perf_counter() - began)


def rate(client: Client, seconds: float) -> float:
    """Return events a second."""
    body = pack_entries(events(EVENTS_A_CHUNK))
    began, sent = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        client.send_packed("ad.click", body, EVENTS_A_CHUNK)
        sent += EVENTS_A_CHUNK
    client.flush()
    return sent / (time.perf_counter() - began)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5, help="length of each run")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each kind")
    parser.add_argument("--workers", type=int, default=cpu_quota(), help="worker processes")
    options = parser.parse_args()
    ratios, rates, times = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "filters").mkdir()
        file = folder / "filters" / "enrich.py"
        file.write_text(FILTER)
        port = free_port()
        sink = Program(
            [sys.executable, "-m", "benchmarks.sink", str(port)], log=folder / "sink.log"
        )
        settings = {
            "downstream.port": port,
            "workers.count": options.workers,
            "filters.reload": "false",  # SIGHUP alone
        }
        sidecar = Sidecar(folder / "filters", folder, settings)
        try:
            sink.start(lambda: listening(port), timeout=60)
            sidecar.start()
            with Client("127.0.0.1", sidecar.port, window=WINDOW) as client:
                rate(client, 1)
                for _ in range(options.rounds):
                    # Before and after: what the machine does in between is in the mean.
                    alone = [rate(client, options.seconds / 2)]
                    with Reloading(sidecar, file) as reloading:
                        while_reloading = rate(client, options.seconds)
                    alone.append(rate(client, options.seconds / 2))
                    rates.append(statistics.mean(alone))
                    ratios.append(while_reloading / rates[-1])
                    times += reloading.times
            lost = sidecar.metrics()
        finally:
            sidecar.stop()
            sink.stop()
    received = lost["fluent_bridge_received_events_total"]
    if received != lost["fluent_bridge_emitted_events_total"]:
        sys.exit("events were lost on the way: the figures mean nothing")
    if not times:
        sys.exit("no reload ended in time: make --seconds longer")
    print(
        f"{options.workers} workers, {cpu_quota()} CPUs:"
        f" {statistics.median(rates):,.0f} events/s without reloads,"
        f" {statistics.median(ratios):.2f} of it while they reload"
        f" ({min(ratios):.2f} to {max(ratios):.2f});"
        f" {len(times)} reloads, {statistics.median(times):.1f} s each"
    )


if __name__ == "__main__":
    main()
