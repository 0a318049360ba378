"""What a filter over gRPC costs a Fluentd pipeline: ``python -m benchmarks.filter``.

    in_forward -> null    against    in_forward -> filter bridge -> null

and against the same with a server that only sends the batch back, which is what gRPC alone costs. Real Fluentd, messages of 1,000 events. in_forward handles one message after the other in one thread, so
with one Fluentd worker the filter's latency is what counts, and that the processor is another process's in
between; with as many Fluentd workers as cores (``--fluentd-workers``) its CPU time is. All cases alternate,
and medians of ratios within a round are shown: on a machine whose speed changes nothing else means something.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.hop import events
from bridge.forward import Client
from bridge.forward.codec import pack_entries
from bridge.local.fluentd import Fluentd, configuration
from bridge.local.processes import Program
from bridge.local.sidecar import Sidecar

EVENTS_A_MESSAGE = 1_000
WINDOW = 8

CONF = """
<system>
  workers "#{ENV['FLUENTD_WORKERS']}"
</system>
<source>
  @type forward
  bind 127.0.0.1
  port "#{ENV['RETURN_PORT']}"
</source>
%s
<match ad.**>
  @type null
</match>
"""
FILTER = """
<filter ad.**>
  @type bridge
  address "#{ENV['SIDECAR_ADDRESS']}"
</filter>
"""
FUNCTIONS = """
import bridge
import msgspec

class Click(msgspec.Struct):
    price: float

@bridge.filter("ad.view")
def paid(click: Click) -> bool:
    return click.price >= 0

@bridge.filter("ad.dict")
def enrich(record: dict) -> dict:
    record["site"] = record["url"].split("/", 3)[2]
    return record
"""
PLAIN = "without the filter"
# Name, which of the Fluentds, the events' tag.
CASES = [
    (PLAIN, "plain", "ad.none"),
    ("a server that sends the batch back", "echo", "ad.none"),
    ("filter, no function for the tag", "filter", "ad.none"),
    ("filter, typed predicate", "filter", "ad.view"),
    ("filter, dict with one more field", "filter", "ad.dict"),
]


@dataclass
class Run:
    """One case; CPU in seconds an event."""

    events_per_second: float
    fluentd: float
    transport: float
    workers: float


def tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def send(port: int, tag: str, until: float) -> int:
    """Send over one connection, and return how many events were acknowledged."""
    body = pack_entries(events(EVENTS_A_MESSAGE))
    sent = 0
    with Client("127.0.0.1", port, window=WINDOW) as client:
        while time.perf_counter() < until:
            client.send_packed(tag, body, EVENTS_A_MESSAGE)
            sent += EVENTS_A_MESSAGE
        client.flush()
    return sent


def measure(
    port: int, tag: str, seconds: float, connections: int, roles: list[list[psutil.Process]]
) -> Run:
    send(port, tag, time.perf_counter() + 0.2)
    before = [cpu(processes) for processes in roles]
    began = time.perf_counter()
    with ThreadPoolExecutor(connections) as senders:
        until = [began + seconds] * connections
        sent = sum(senders.map(send, [port] * connections, [tag] * connections, until))
    took = time.perf_counter() - began
    after = [cpu(processes) for processes in roles]
    return Run(
        sent / took, *((end - start) / sent for start, end in zip(before, after, strict=True))
    )


def rounds(folder: Path, number: int, seconds: float, fluentd_workers: int) -> list[dict[str, Run]]:
    functions = folder / "filters"
    functions.mkdir()
    (functions / "functions.py").write_text(FUNCTIONS)
    socket = folder / "sidecar.sock"
    sidecar = Sidecar(functions, folder, {"rpc.socket": socket, "listen.enabled": "false"})
    echo = Program(
        [sys.executable, "-m", "benchmarks.echo", str(folder / "echo.sock")],
        log=folder / "echo.log",
    )
    settings = {
        "RUBYLIB": str(configuration().parent / "fluent-plugin-bridge" / "lib"),
        "FLUENTD_WORKERS": str(fluentd_workers),
    }
    fluentds = {}
    for name, section, address in (
        ("plain", "", ""),
        ("echo", FILTER, folder / "echo.sock"),
        ("filter", FILTER, socket),
    ):
        conf = folder / f"{name}.conf"
        conf.write_text(CONF % section)
        settings = {**settings, "SIDECAR_ADDRESS": f"unix:{address}"}
        fluentds[name] = Fluentd(folder / name, settings, conf=conf)
    try:
        sidecar.start()
        echo.start((folder / "echo.sock").exists, timeout=20)
        for fluentd in fluentds.values():
            fluentd.start()
        transport, *workers = tree(sidecar.pid)
        servers = {
            "plain": [[], []],
            "echo": [tree(echo.pid), []],
            "filter": [[transport], workers],
        }
        roles = {name: [tree(one.pid), *servers[name]] for name, one in fluentds.items()}
        # Connections go to whichever worker accepts first.
        connections = 1 if fluentd_workers == 1 else fluentd_workers * 4
        found = []
        for _ in range(number):
            one = {}
            for case, name, tag in CASES:
                port = fluentds[name].return_port
                one[case] = measure(port, tag, seconds, connections, roles[name])
            found.append(one)
        return found
    finally:
        for fluentd in fluentds.values():
            fluentd.kill()
        sidecar.stop()
        echo.stop(5)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3, help="length of each run")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each case")
    parser.add_argument("--fluentd-workers", type=int, default=1, help="workers of each Fluentd")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = rounds(Path(folder), options.rounds, options.seconds, options.fluentd_workers)

    def median(case: str, value) -> float:
        return statistics.median(value(one[case], one[PLAIN]) for one in found)

    table = Table(
        "path",
        "events/s",
        "÷ without",
        "CPU µs an event: Fluentd",
        "transport",
        "workers",
        caption=f"{options.fluentd_workers} Fluentd worker(s), {os.cpu_count()} cores, {EVENTS_A_MESSAGE} events of"
        f" {len(pack_entries(events(EVENTS_A_MESSAGE))) // EVENTS_A_MESSAGE} bytes a message,"
        f" medians of {len(found)} rounds, the sender on the same cores",
    )
    for case, *_ in CASES:
        table.add_row(
            case,
            f"{median(case, lambda run, _: run.events_per_second) / 1e3:,.0f}k",
            f"{median(case, lambda run, plain: run.events_per_second / plain.events_per_second):.2f}",
            *(
                f"{median(case, lambda run, _, role=role: getattr(run, role)) * 1e6:.2f}"
                for role in ("fluentd", "transport", "workers")
            ),
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
