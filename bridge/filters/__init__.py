"""What a user's file says about its functions, and what the runtime knows of them."""

from bridge.filters.declarations import Declaration, batch, declaring, filter  # noqa: A004
from bridge.filters.registry import Filter, Kind, Registry, resolve

__all__ = [
    "Declaration",
    "Filter",
    "Kind",
    "Registry",
    "batch",
    "declaring",
    "filter",
    "resolve",
]
