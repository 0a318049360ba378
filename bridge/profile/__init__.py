"""Where a worker's time goes, measured on the user's own filters and events."""

from bridge.profile.measuring import measure, prepare
from bridge.profile.processes import measure_at_once
from bridge.profile.profile import Profile

__all__ = ["Profile", "measure", "measure_at_once", "prepare"]
