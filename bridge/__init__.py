"""Python filters for Fluentd, out of process."""

from bridge.errors import Reject, Retry
from bridge.events import Event, EventTime
from bridge.filters import batch, filter  # noqa: A004 - Fluentd's word, and read as bridge.filter
from bridge.instruments import counter, histogram
from bridge.version import __version__

__all__ = [
    "Event",
    "EventTime",
    "Reject",
    "Retry",
    "__version__",
    "batch",
    "counter",
    "filter",
    "histogram",
]
