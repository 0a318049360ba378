"""What a user tests filters with: a harness, case files, a plugin for pytest.

pytest loads the plugin wherever fluent-bridge is installed, so nothing is imported here before
somebody asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bridge.testing.harness import Harness, Start
    from bridge.testing.result import DeadLetter, FilterCounts, Result

__all__ = ["DeadLetter", "FilterCounts", "Harness", "Result", "Start"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bridge.testing import harness, result  # noqa: PLC0415 - see above

    return getattr(harness if hasattr(harness, name) else result, name)
