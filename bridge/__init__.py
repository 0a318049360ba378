"""Python filters for Fluentd, out of process."""

from bridge.errors import Reject, Retry
from bridge.events import Event, EventTime

__all__ = ["Event", "EventTime", "Reject", "Retry"]
__version__ = "0.1.0"
