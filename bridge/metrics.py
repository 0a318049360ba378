"""The sidecar's metrics in Prometheus' format.

Names follow Prometheus' conventions: our prefix, base units, ``_total`` on counters. Source:
https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from bridge.instruments import check_names
from bridge.version import __version__

_PREFIX = "fluent_bridge"

# From a small chunk through a predicate to the deadline.
_WORK = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
# Waiting goes on up to the patience, three minutes unless set.
_WAIT = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 180)

# The standard library's, which bridge.logs takes in: that stands on the same layer as this.
_log = logging.getLogger(__name__)


class Metrics:
    """Every metric, in a registry of its own.

    The attributes are prometheus_client's counters, gauges and histograms; whoever sees something
    happen counts it there. Used from the event loop's thread only.
    """

    def __init__(self) -> None:
        # Creation times double the number of series, and Prometheus reads none of them by default.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=True)

        self.connections = self._gauge("connections", "Connections from senders that are open.")
        self.connections_closed = self._counter(
            "connections_closed", "Connections from senders that ended, by reason.", "reason"
        )
        self.received_chunks = self._counter("received_chunks", "Chunks taken in to be processed.")
        self.received_bytes = self._counter(
            "received_bytes", "Bytes of the entries of chunks taken in, as they were sent."
        )
        self.received_events = self._counter("received_events", "Events that went into filters.")
        self.emitted_events = self._counter(
            "emitted_events", "Events that came out of filters and were delivered."
        )
        self.dropped_events = self._counter("dropped_events", "Events that filters dropped.")
        self.error_events = self._counter(
            "error_events", "Events that went to the error stream with a reason."
        )
        self.duplicate_chunks = self._counter(
            "duplicate_chunks", "Chunks that came again, acknowledged and not processed twice."
        )
        self.handed_back_chunks = self._counter(
            "handed_back_chunks", "Chunks left unacknowledged, for the sender to send again."
        )
        self.retried_chunks = self._counter(
            "retried_chunks", "Chunks that were run through the filters again, by reason.", "reason"
        )

        self.in_flight_bytes = self._gauge(
            "in_flight_bytes", "Bytes of chunks held in memory, not yet acknowledged."
        )
        self.in_flight_limit_bytes = self._gauge(
            "in_flight_limit_bytes", "Bytes in flight above which nothing more is read."
        )
        self.queue_chunks = self._gauge("queue_chunks", "Chunks that wait for a worker.")
        self.queue_wait_seconds = self._histogram(
            "queue_wait_seconds", "Time that a chunk waited for a worker.", _WAIT
        )

        self.workers = self._gauge("ready_workers", "Workers that can take a chunk.")
        self.worker_restarts = self._counter(
            "worker_restarts", "Workers that ended and were replaced, by reason.", "reason"
        )
        self.worker_chunk_seconds = self._histogram(
            "worker_chunk_seconds", "Time that a worker took for a chunk.", _WORK, "worker"
        )
        self.worker_cpu_seconds = self._counter(
            "worker_cpu_seconds", "CPU time that a worker has used.", "worker"
        )
        self.worker_resident_bytes = self._gauge(
            "worker_resident_memory_bytes", "Memory that a worker holds.", "worker"
        )

        self.filter_seconds = self._histogram(
            "filter_seconds", "Time that a filter took for the events of a chunk.", _WORK, "filter"
        )
        self.filter_events = self._counter(
            "filter_events", "Events that a filter was given.", "filter"
        )
        self.filter_dropped = self._counter(
            "filter_dropped_events", "Events that a filter dropped.", "filter"
        )
        self.filter_errors = self._counter(
            "filter_error_events", "Events that a filter failed on or rejected.", "filter"
        )

        self.filter_reloads = self._counter(
            "filter_reloads",
            "Times that changed filters were loaded beside those that run, by result.",
            "result",
        )
        for result in ("ok", "failed"):  # an alert asks for an increase, from 0 on
            self.filter_reloads.labels(result)
        self.filters_outdated = self._gauge(
            "filters_outdated",
            "1 while the filters that run are not those on disk, because those cannot be loaded.",
        )
        self.filters_loaded = self._gauge(
            "filters_loaded_timestamp_seconds", "When the filters that run took over, since 1970."
        )
        self.filters_running = Info(
            f"{_PREFIX}_filters",
            "What runs: the digest of its files, the same on all replicas that run the same.",
            registry=self.registry,
        )

        self.downstream_connections = self._gauge(
            "downstream_connections", "Connections to the receiver of results that are open."
        )
        self.delivery_seconds = self._histogram(
            "delivery_seconds", "Time from a result's sending to its acknowledgement.", _WAIT
        )
        self.delivery_retries = self._counter(
            "delivery_retries", "Results that were sent once more after a failure."
        )

        self.rpc_calls = self._counter(
            "rpc_calls", "gRPC calls that ended, by method and status code.", "method", "code"
        )
        self.rpc_calls_in_progress = self._gauge(
            "rpc_calls_in_progress", "Batches that gRPC callers wait for."
        )
        self.rpc_call_seconds = self._histogram(
            "rpc_call_seconds", "Time from a gRPC call's arrival to its reply.", _WAIT, "method"
        )

        build = Info(f"{_PREFIX}_build", "The version that runs.", registry=self.registry)
        build.info({"version": __version__})
        ProcessCollector(registry=self.registry)
        self._instruments = _Instruments()
        self.registry.register(self._instruments)

    def add_instruments(self, deltas: Iterable[Sequence[Any]]) -> None:
        """Add what the users' own counters and histograms gained in a worker.

        A metric whose name Prometheus would not take, or that is ours, is left out, and the log
        says so once: a filter's statistics must not stop its events.

        Args:
            deltas: what :func:`bridge.instruments.drain` returned, sent from a worker.
        """
        for delta in deltas:
            self._instruments.add(*delta)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return all metrics and their content type.

        Args:
            accept: the scraper's Accept header; by default the plain text format, 0.0.4.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"{_PREFIX}_{name}", meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"{_PREFIX}_{name}", meaning, labels, registry=self.registry)

    def _histogram(
        self, name: str, meaning: str, buckets: Sequence[float], *labels: str
    ) -> Histogram:
        return Histogram(
            f"{_PREFIX}_{name}", meaning, labels, registry=self.registry, buckets=buckets
        )


class _Instrument:
    """What one of the users' metrics has come to over all workers."""

    def __init__(
        self, name: str, meaning: str, kind: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> None:
        self.shape = (name, meaning, kind, tuple(labels), tuple(buckets))
        self.samples: dict[tuple[str, ...], list[float]] = {}

    def add(self, labels: Sequence[str], gained: Sequence[float]) -> None:
        values = self.samples.setdefault(tuple(labels), [0.0] * len(gained))
        for position, more in enumerate(gained):
            values[position] += more

    def family(self) -> Metric:
        name, meaning, kind, labels, buckets = self.shape
        if kind == "counter":
            counter = CounterMetricFamily(name, meaning, labels=labels)
            for values, (total,) in self.samples.items():
                counter.add_metric(values, total)
            return counter
        histogram = HistogramMetricFamily(name, meaning, labels=labels)
        for values, (*counts, total, count) in self.samples.items():
            # Prometheus' buckets hold all that is below their bound, so each holds those before it.
            below = [sum(counts[: position + 1]) for position in range(len(buckets))]
            bounds = [f"{float(bound)}" for bound in buckets]
            histogram.add_metric(values, [*zip(bounds, below, strict=True), ("+Inf", count)], total)
        return histogram


class _Instruments(Collector):
    """The users' own metrics, by name."""

    def __init__(self) -> None:
        self._known: dict[str, _Instrument] = {}
        self._refused: set[str] = set()

    def add(  # noqa: PLR0917 - a delta's fields in their order on the wire
        self,
        name: str,
        meaning: str,
        kind: str,
        labels: Sequence[str],
        buckets: Sequence[float],
        samples: Iterable[tuple[Sequence[str], Any]],
    ) -> None:
        family = name.removesuffix("_total") if kind == "counter" else name
        if name in self._refused:
            return
        instrument = _Instrument(family, meaning, kind, labels, buckets)
        known = self._known.get(family)
        # A reload may have changed a metric's labels or buckets; it then begins again.
        if known is None or known.shape != instrument.shape:
            try:
                check_names(name, labels)
                instrument.family()
            except ValueError as error:
                self._refused.add(name)
                _log.warning("the metric %s of a filter is left out: %s", name, error)
                return
            self._known[family] = known = instrument
        for values, gained in samples:
            known.add(values, [gained] if kind == "counter" else gained)

    def collect(self) -> Iterable[Metric]:
        for instrument in self._known.values():
            yield instrument.family()
