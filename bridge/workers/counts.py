"""What a worker's reply counts for in the metrics, whichever road the chunk came by."""

from __future__ import annotations

from bridge.metrics import Metrics
from bridge.workers import wire


def count_run(metrics: Metrics, reply: wire.Done) -> None:
    """Count what the filters did.

    Args:
        metrics: where to count.
        reply: to a chunk, or a piece of one, that was run.
    """
    for name, seconds, events, dropped, failed in reply.filters:
        metrics.filter_seconds.labels(name).observe(seconds)
        metrics.filter_events.labels(name).inc(events)
        metrics.filter_dropped.labels(name).inc(dropped)
        metrics.filter_errors.labels(name).inc(failed)
    metrics.add_instruments(reply.instruments)


def count_delivered(metrics: Metrics, reply: wire.Done) -> None:
    """Count the events of a reply whose results were handed on.

    All four together and only then, so that at any moment events in are events out, dropped and
    dead-lettered, but for what filters made more of.

    Args:
        metrics: where to count.
        reply: whose results were delivered downstream, or returned to the caller.
    """
    metrics.received_events.inc(reply.received)
    metrics.dropped_events.inc(reply.dropped)
    metrics.error_events.inc(reply.errors)
    for _, count, _, is_error in reply.streams:
        if not is_error:
            metrics.emitted_events.inc(count)
