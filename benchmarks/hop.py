"""What a hop through the sidecar costs, as a ratio to the bare loop of the same run.

    python -m benchmarks.hop [--seconds 4] [--rounds 5] [--markdown]

The bare loop decodes an event, runs the filter on it and encodes the result, in one process, with
nothing around it: what any Python program has to pay. The hop is a sender, the sidecar and a sink,
each in processes of their own on this machine, acknowledged on both sides. Loop and hop alternate,
and medians are compared: on a machine whose speed changes, only ratios of the same run mean
something.

What it costs to look on is measured in turns too, in one sidecar: some seconds with `fluent-bridge
tap` of all events at its usual rate, in a process of its own on the same cores, and some without.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import msgspec
import psutil
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bridge.events import EventTime
from bridge.forward import Client
from bridge.forward.codec import pack_entries
from bridge.local.processes import Program, free_port, listening
from bridge.local.sidecar import Sidecar

EVENTS_A_CHUNK = 5_000
WINDOW = 8
# Many short turns: what the machine does meanwhile then meets both kinds alike.
TURN = 0.6  # seconds
TURNS_A_ROUND = 8
FILTER = """
import bridge

@bridge.filter("ad.**")
def enrich(record: dict) -> dict:
    record["site"] = record["url"].split("/", 3)[2]
    return record
"""


def events(count: int) -> list[tuple[EventTime, dict]]:
    """Return events of ten fields and about 170 bytes."""
    return [
        (
            EventTime(1_700_000_000 + i // 100, i * 1000 % 10**9),
            {
                "id": i,
                "url": f"http://site{i % 100}.example/path/{i}",
                "ua": "Mozilla/5.0 (X11; Linux x86_64)",
                "country": "de",
                "price": i * 0.01,
                "ip": "10.1.2.3",
                "campaign": i % 500,
                "user": f"user-{i % 9999}",
                "type": "click",
                "ok": True,
            },
        )
        for i in range(count)
    ]


def bare_loop(seconds: float) -> float:
    """Return CPU seconds an event."""
    entries = [pack_entries([event]) for event in events(EVENTS_A_CHUNK)]
    decode = msgspec.msgpack.Decoder().decode
    encode = msgspec.msgpack.Encoder().encode

    def enrich(record: dict) -> dict:
        record["site"] = record["url"].split("/", 3)[2]
        return record

    done = 0
    began = time.process_time()
    while (took := time.process_time() - began) < seconds:
        out = []
        for entry in entries:
            moment, record = decode(entry)
            out.append(encode((moment, enrich(record))))
        b"".join(out)
        done += len(entries)
    return took / done


@dataclass
class Hop:
    """One run through the sidecar; CPU in seconds an event."""

    events_per_second: float
    transport: float
    workers: float
    transport_bytes: int
    worker_bytes: int

    @property
    def cpu(self) -> float:
        """What all of the sidecar takes."""
        return self.transport + self.workers


def hop(workers: int, seconds: float, folder: Path) -> Hop:
    """Send through a sidecar to a sink, each in a process of its own, and measure."""
    with running(workers, folder) as sidecar:
        return measure(sidecar, seconds)


@contextlib.contextmanager
def running(workers: int, folder: Path) -> Iterator[Sidecar]:
    """Run a sidecar and a sink behind it, each in a process of its own."""
    filters = folder / "filters"
    filters.mkdir(exist_ok=True)
    (filters / "enrich.py").write_text(FILTER)
    port = free_port()
    sink = Program([sys.executable, "-m", "benchmarks.sink", str(port)], log=folder / "sink.log")
    sidecar = Sidecar(filters, folder, {"downstream.port": port, "workers.count": workers})
    try:
        sink.start(lambda: listening(port), timeout=60)
        sidecar.start()
        yield sidecar
        metrics = sidecar.metrics()
    finally:
        sidecar.stop()
        sink.stop()
    received = metrics["fluent_bridge_received_events_total"]
    if received != metrics["fluent_bridge_emitted_events_total"]:
        sys.exit("events were lost on the way: the figures mean nothing")


@dataclass
class Turns:
    """The same hop without a tap and with one, in turns."""

    alone: list[Hop]
    tapped: list[Hop]
    shown: int

    def quartiles(self, value: Callable[[Hop], float]) -> list[float]:
        """Return what a figure with the tap is to that without: quartiles over the turns."""
        return statistics.quantiles(
            value(tapped) / value(alone)
            for alone, tapped in zip(self.alone, self.tapped, strict=True)
        )


def tapped_hop(workers: int, seconds: float, turns: int, folder: Path) -> Turns:
    """Send through a sidecar, in turns with a tap and without."""
    measured = Turns([], [], 0)
    with running(workers, folder) as sidecar:
        measure(sidecar, seconds)  # warm
        for turn in range(turns):
            for with_tap in (False, True) if turn % 2 else (True, False):
                if not with_tap:
                    measured.alone.append(measure(sidecar, seconds))
                    continue
                with tap(sidecar, folder) as lines:
                    before = lines()
                    measured.tapped.append(measure(sidecar, seconds))
                    measured.shown += lines() - before
    return measured


@contextlib.contextmanager
def tap(sidecar: Sidecar, folder: Path) -> Iterator[Callable[[], int]]:
    """Look at all events with the command; gives a function that counts those it printed."""
    printed = folder / "tap.jsonl"
    url = f"http://127.0.0.1:{sidecar.admin}"
    command = [sys.executable, "-m", "bridge", "tap", "--url", url]
    with printed.open("wb") as out, subprocess.Popen(command, stdout=out) as process:

        def lines() -> int:
            return printed.read_bytes().count(b"\n")

        try:
            # It is there when it has printed something; Python's own start is no part of this.
            with Client("127.0.0.1", sidecar.port) as client:
                while not lines():
                    if process.poll() is not None:
                        sys.exit("the tap ended: the figures mean nothing")
                    client.send_packed("ad.click", pack_entries(events(1)), 1)
                    client.flush()
                    time.sleep(0.05)
            yield lines
        finally:
            process.terminate()


def measure(sidecar: Sidecar, seconds: float) -> Hop:
    """Send for some seconds."""
    transport = psutil.Process(sidecar.pid)
    body = pack_entries(events(EVENTS_A_CHUNK))
    with Client("127.0.0.1", sidecar.port, window=WINDOW) as client:
        client.send_packed("ad.click", body, EVENTS_A_CHUNK)
        client.flush()
        workers = transport.children()
        before = [_cpu(transport), sum(map(_cpu, workers))]
        began, sent = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            client.send_packed("ad.click", body, EVENTS_A_CHUNK)
            sent += EVENTS_A_CHUNK
        client.flush()
        took = time.perf_counter() - began
        after = [_cpu(transport), sum(map(_cpu, workers))]
    return Hop(
        sent / took,
        (after[0] - before[0]) / sent,
        (after[1] - before[1]) / sent,
        transport.memory_info().rss,
        max(worker.memory_info().rss for worker in workers),
    )


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4, help="length of each run")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each kind")
    parser.add_argument("--markdown", action="store_true", help="print a table for a document")
    options = parser.parse_args()
    console = Console()
    rounds: list[Round] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(2, get_context("spawn")) as loops,
        Progress(console=console, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task("measuring", total=options.rounds)
        for _ in range(options.rounds):
            hops = {}
            # The loop before and after: what the machine does in between is in its mean.
            alone = [loops.submit(bare_loop, options.seconds / 2).result()]
            for workers in (1, 2):
                hops[workers] = hop(workers, options.seconds, Path(folder))
            alone.append(loops.submit(bare_loop, options.seconds / 2).result())
            both = list(loops.map(bare_loop, [options.seconds / 2] * 2))
            rounds.append(Round(statistics.mean(alone), statistics.mean(both), hops))
            progress.advance(task)
        turns = tapped_hop(2, TURN, TURNS_A_ROUND * options.rounds, Path(folder))
    show(console, rounds, markdown=options.markdown)
    show_turns(turns)


@dataclass
class Round:
    """One of each; CPU in seconds an event."""

    alone: float
    both: float
    hops: dict[int, Hop]


def show(console: Console, rounds: list[Round], *, markdown: bool) -> None:
    """Print the table: medians over the rounds, of ratios too."""

    def median(value: Callable[[Round], float]) -> float:
        return statistics.median(map(value, rounds))

    alone = median(lambda one: one.alone)
    both = median(lambda one: one.both)
    rows = [
        ("bare loop", f"{1 / alone / 1e3:,.0f}k", f"{alone * 1e6:.2f}", "", "1.00", "0.50", ""),
        (
            "two bare loops at once",
            f"{2 / both / 1e3:,.0f}k",
            f"{both * 1e6:.2f}",
            "",
            f"{median(lambda one: one.both / one.alone):.2f}",
            f"{median(lambda one: one.alone / one.both):.2f}",
            "",
        ),
    ]
    for workers in (1, 2):
        transport_bytes = max(one.hops[workers].transport_bytes for one in rounds)
        worker_bytes = max(one.hops[workers].worker_bytes for one in rounds)
        rows.append(
            (
                f"hop, {workers} worker{'s' if workers > 1 else ''}",
                f"{median(lambda one, n=workers: one.hops[n].events_per_second) / 1e3:,.0f}k",
                f"{median(lambda one, n=workers: one.hops[n].workers) * 1e6:.2f}",
                f"{median(lambda one, n=workers: one.hops[n].transport) * 1e6:.2f}",
                f"{median(lambda one, n=workers: one.hops[n].cpu / one.alone):.2f}",
                f"{median(lambda one, n=workers: one.hops[n].events_per_second * one.alone / 2):.2f}",
                f"{transport_bytes >> 20} + {workers} x {worker_bytes >> 20}",
            )
        )
    header = (
        "path",
        "events/s",
        "CPU µs an event, loop or workers",
        "transport",
        "CPU ÷ bare loop",
        "events/s ÷ 2 bare loops",
        "MiB",
    )
    size = len(pack_entries(events(EVENTS_A_CHUNK))) // EVENTS_A_CHUNK
    where = (
        f"{os.cpu_count()} cores, {_cpu_model()}, {platform.system()} {platform.release()},"
        f" Python {platform.python_version()}; {EVENTS_A_CHUNK} events of {size} bytes a chunk,"
        f" medians of {len(rounds)} rounds, sender and sink on the same cores"
    )
    if markdown:
        for row in (header, ("---",) * len(header), *rows):
            print("| " + " | ".join(row) + " |")
        print(f"\n{where}.")
        return
    table = Table(*header, caption=where)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def show_turns(turns: Turns) -> None:
    """Print what it costs to look on."""
    low, rate, high = turns.quartiles(lambda one: one.events_per_second)
    _, cpu, _ = turns.quartiles(lambda one: one.cpu)
    print(
        f"\nWith `fluent-bridge tap` on it, which printed {turns.shown} events in"
        f" {len(turns.tapped)} turns: {rate:.3f} of the events/s without (half of the turns between"
        f" {low:.3f} and {high:.3f}), {cpu:.3f} of the sidecar's CPU an event."
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
