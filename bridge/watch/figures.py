"""What a sidecar did between two scrapes of its metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from bridge.watch.metrics import Scrape

# Counters of what should not happen, with the label that says why, and in which words.
_TROUBLE = {
    "worker_restarts_total": ("reason", "workers replaced"),
    "retried_chunks_total": ("reason", "chunks run again"),
    "connections_closed_total": ("reason", "connections ended"),
}
_HARMLESS = {"eof", "drain"}


class Worker(msgspec.Struct, frozen=True):
    """A worker process.

    Attributes:
        name: its name.
        cpu: the part of a core that it uses.
        resident_bytes: its memory.
        chunks: chunks a second.
        chunk_seconds: how long it takes for one.
    """

    name: str
    cpu: float
    resident_bytes: float
    chunks: float
    chunk_seconds: float


class Filter(msgspec.Struct, frozen=True):
    """A filter.

    Attributes:
        name: its name.
        events: events a second.
        event_seconds: how long it takes for one.
        share: of the workers' time, the part that it takes.
        dropped: events dropped a second.
        errors: events failed or rejected a second.
    """

    name: str
    events: float
    event_seconds: float
    share: float
    dropped: float
    errors: float


class Call(msgspec.Struct, frozen=True):
    """A gRPC method.

    Attributes:
        method: its name.
        calls: calls a second.
        seconds: how long one takes.
        failed: calls a second that ended with another code than OK.
    """

    method: str
    calls: float
    seconds: float
    failed: float


class Figures(msgspec.Struct, frozen=True):
    """What a sidecar did, all rates a second.

    Attributes:
        version: its version.
        ready: whether it is ready.
        trouble: what is wrong with it, by what that is about.
        uptime: seconds since its start.
        interval: seconds between the scrapes.
        events_in: events that went into filters.
        events_out: events that came out and were delivered.
        dropped: events dropped.
        errors: events that went to the error stream.
        chunks: chunks taken in.
        received_bytes: bytes taken in.
        queue: chunks that wait for a worker.
        queue_seconds: how long a chunk waited.
        in_flight_bytes: bytes held.
        in_flight_limit_bytes: bytes above which nothing more is read.
        cpu: the part of a core that the transport process uses.
        resident_bytes: its memory.
        workers: the workers.
        filters: the filters, those that take most of the time first.
        connections: connections from senders.
        downstream_connections: connections to the receiver of results.
        delivery_seconds: from a result's sending to its acknowledgement.
        delivery_retries: results sent once more.
        handed_back: chunks left to the sender.
        duplicates: chunks that came again.
        calls: gRPC methods.
        calls_in_progress: batches that gRPC callers wait for.
        reloads: times that filters were loaded anew, by result, since the start.
        totals: what should not happen, and how often it has since the start.
    """

    version: str
    ready: bool
    trouble: dict[str, str]
    uptime: float
    interval: float
    events_in: float
    events_out: float
    dropped: float
    errors: float
    chunks: float
    received_bytes: float
    queue: float
    queue_seconds: float
    in_flight_bytes: float
    in_flight_limit_bytes: float
    cpu: float
    resident_bytes: float
    workers: list[Worker]
    filters: list[Filter]
    connections: float
    downstream_connections: float
    delivery_seconds: float
    delivery_retries: float
    handed_back: float
    duplicates: float
    calls: list[Call]
    calls_in_progress: float
    reloads: dict[str, int]
    totals: dict[str, int]


def figures(before: Scrape, after: Scrape) -> Figures:
    """Return what a sidecar did between two scrapes.

    Args:
        before: the earlier.
        after: the later. Where the sidecar was started anew between, its counters began at 0.
    """
    seconds = max(after.moment - before.moment, 1e-9)
    same = _start(before) == _start(after)

    def gained(name: str, **labels: str) -> float:
        was = before.value(name, **labels) if same else 0.0
        # A metric of a worker or a filter that is gone begins again with the next of that name.
        return max(after.value(name, **labels) - was, 0.0)

    def rate(name: str, **labels: str) -> float:
        return gained(name, **labels) / seconds

    def mean(name: str, **labels: str) -> float:
        return _ratio(gained(f"{name}_sum", **labels), gained(f"{name}_count", **labels))

    checks: dict[str, Any] = after.ready.get("checks", {})
    warnings: dict[str, Any] = after.ready.get("warnings", {})
    return Figures(
        version=after.info("build_info").get("version", "?"),
        ready=bool(after.ready.get("ready")),
        trouble={name: why for name, why in (*checks.items(), *warnings.items()) if why != "ok"},
        uptime=max(time.time() - _start(after), 0.0),
        interval=seconds,
        events_in=rate("received_events_total"),
        events_out=rate("emitted_events_total"),
        dropped=rate("dropped_events_total"),
        errors=rate("error_events_total"),
        chunks=rate("received_chunks_total"),
        received_bytes=rate("received_bytes_total"),
        queue=after.value("queue_chunks"),
        queue_seconds=mean("queue_wait_seconds"),
        in_flight_bytes=after.value("in_flight_bytes"),
        in_flight_limit_bytes=after.value("in_flight_limit_bytes"),
        cpu=rate("process_cpu_seconds_total"),
        resident_bytes=after.value("process_resident_memory_bytes"),
        workers=[
            Worker(
                name,
                rate("worker_cpu_seconds_total", worker=name),
                after.value("worker_resident_memory_bytes", worker=name),
                rate("worker_chunk_seconds_count", worker=name),
                mean("worker_chunk_seconds", worker=name),
            )
            for name in after.labels("worker_resident_memory_bytes", "worker")
        ],
        filters=_filters(after, gained, seconds),
        connections=after.value("connections"),
        downstream_connections=after.value("downstream_connections"),
        delivery_seconds=mean("delivery_seconds"),
        delivery_retries=rate("delivery_retries_total"),
        handed_back=rate("handed_back_chunks_total"),
        duplicates=rate("duplicate_chunks_total"),
        calls=[
            Call(
                method,
                rate("rpc_calls_total", method=method),
                mean("rpc_call_seconds", method=method),
                rate("rpc_calls_total", method=method)
                - rate("rpc_calls_total", method=method, code="OK"),
            )
            for method in after.labels("rpc_calls_total", "method")
        ],
        calls_in_progress=after.value("rpc_calls_in_progress"),
        reloads={
            result: int(after.value("filter_reloads_total", result=result))
            for result in after.labels("filter_reloads_total", "result")
        },
        totals=_totals(after),
    )


def _filters(after: Scrape, gained: Callable[..., float], seconds: float) -> list[Filter]:
    worked = gained("worker_chunk_seconds_sum")
    found = []
    for name in after.labels("filter_seconds_count", "filter"):
        took = gained("filter_seconds_sum", filter=name)
        events = gained("filter_events_total", filter=name)
        found.append(
            Filter(
                name,
                events / seconds,
                _ratio(took, events),
                _ratio(took, worked),
                gained("filter_dropped_events_total", filter=name) / seconds,
                gained("filter_error_events_total", filter=name) / seconds,
            )
        )
    return sorted(found, key=lambda one: -one.share)


def _totals(after: Scrape) -> dict[str, int]:
    totals = {}
    for metric, (label, what) in _TROUBLE.items():
        for reason in after.labels(metric, label):
            count = int(after.value(metric, **{label: reason}))
            if count and reason not in _HARMLESS:
                totals[f"{what}: {reason}"] = count
    return totals


def _start(scrape: Scrape) -> float:
    return scrape.value("process_start_time_seconds")


def _ratio(one: float, other: float) -> float:
    return one / other if other else 0.0
