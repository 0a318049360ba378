"""Counters and histograms of the user's own, which appear in ``/metrics``.

They are created when a filter file is imported, gain values in a worker, and are drained into its
replies: the transport process adds them up over the workers and never loads the user's files.
"""

from __future__ import annotations

import contextlib
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar

# Source: Prometheus, "Metric names and labels"; the colon is for recording rules, and UTF-8 names
# are left out because older scrapers refuse them.
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_RESERVED_NAMES = ("fluent_bridge_", "process_")  # the sidecar's own, see bridge.metrics
_RESERVED_LABELS = frozenset({"le", "quantile"})

#: The upper bounds that a histogram has unless told otherwise: seconds, as in Prometheus' clients.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Labels = tuple[str, ...]


class Counter:
    """Counts what happens. Made by :func:`counter`."""

    kind = "counter"

    def __init__(self, name: str, help: str, labels: Labels) -> None:  # noqa: A002 - Prometheus' word
        self.name = name
        self.help = help
        self.labels = labels
        self.buckets: tuple[float, ...] = ()
        self._gained: dict[Labels, float] = {}

    def inc(self, n: float = 1, **labels: object) -> None:
        """Count.

        Args:
            n: how much to add, not less than 0.
            **labels: a value for each of the counter's labels.

        Raises:
            ValueError: the labels are not the counter's, or n is negative.
        """
        if n < 0:
            raise ValueError(f"the counter {self.name} cannot be lowered by {-n}")
        values = _values(self, labels) if labels or self.labels else ()
        self._gained[values] = self._gained.get(values, 0) + n

    def drain(self) -> list[tuple[Labels, Any]]:
        """Return the label values and what they gained since the last call."""
        gained, self._gained = self._gained, {}
        return [(_text(values), float(total)) for values, total in gained.items()]


class Histogram:
    """Counts values by their size. Made by :func:`histogram`."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        help: str,  # noqa: A002 - Prometheus' word
        labels: Labels,
        buckets: tuple[float, ...],
    ) -> None:
        self.name = name
        self.help = help
        self.labels = labels
        self.buckets = buckets
        self._gained: dict[Labels, list[float]] = {}

    def observe(self, value: float, **labels: object) -> None:
        """Count a value.

        Args:
            value: the value, in the unit that the histogram's name ends with.
            **labels: a value for each of the histogram's labels.

        Raises:
            ValueError: the labels are not the histogram's.
        """
        values = _values(self, labels) if labels or self.labels else ()
        gained = self._gained.get(values)
        if gained is None:
            gained = self._gained[values] = [0] * (len(self.buckets) + 2)
        bucket = bisect_left(self.buckets, value)
        if bucket < len(self.buckets):
            gained[bucket] += 1
        gained[-2] += value
        gained[-1] += 1

    def drain(self) -> list[tuple[Labels, Any]]:
        """Return the label values, and what each bucket, the sum and the count gained."""
        gained, self._gained = self._gained, {}
        return [(_text(values), list(map(float, totals))) for values, totals in gained.items()]


_I = TypeVar("_I", Counter, Histogram)
#: Instruments by the names of their families.
Known = dict[str, Counter | Histogram]
_known: Known = {}


def counter(name: str, help: str, labels: Sequence[str] = ()) -> Counter:  # noqa: A002
    """Return a counter that appears in ``/metrics``.

    Args:
        name: as in ``clicks_total``; by Prometheus' conventions it ends with ``_total``.
        help: what it counts.
        labels: names of labels; each combination of their values is a time series.

    Raises:
        ValueError: a name is not one to Prometheus, or the name is taken by another metric.
    """
    return _register(Counter(name, help, check_names(name, labels)))


def histogram(
    name: str,
    help: str,  # noqa: A002 - Prometheus' word
    labels: Sequence[str] = (),
    buckets: Sequence[float] = BUCKETS,
) -> Histogram:
    """Return a histogram that appears in ``/metrics``.

    Args:
        name: as in ``lookup_seconds``; by Prometheus' conventions it ends with the unit.
        help: what it measures.
        labels: names of labels; each combination of their values is a set of time series.
        buckets: upper bounds, rising; the one without bound is added.

    Raises:
        ValueError: a name or the bounds cannot be used, or the name is taken by another metric.
    """
    bounds = tuple(float(bound) for bound in buckets)
    if not bounds or any(not low < high for low, high in pairwise(bounds)):
        raise ValueError(
            f"the buckets of {name} must rise, as in (0.1, 0.5, 1); these are {bounds}"
        )
    if bounds[-1] == float("inf"):
        bounds = bounds[:-1]
    return _register(Histogram(name, help, check_names(name, labels), bounds))


def drain() -> list[tuple[str, str, str, Labels, tuple[float, ...], list[tuple[Labels, Any]]]]:
    """Return what instruments gained since the last call, nothing for those that did not.

    Each is its name, help, kind, labels, buckets and gains: what MessagePack can hold. A counter's
    gain is a number, a histogram's a list: the count in each bucket, the sum and the count of all.
    """
    return [
        (one.name, one.help, one.kind, one.labels, one.buckets, gained)
        for one in _known.values()
        if (gained := one.drain())
    ]


@contextlib.contextmanager
def kept_in(known: Known) -> Iterator[None]:
    """Make and drain instruments apart from all others meanwhile.

    A worker loads one folder of filters in its life. A process that loads several must not have the
    names of one clash with those of another.

    Args:
        known: those that there are; what is made is added.
    """
    global _known  # noqa: PLW0603 - filters are loaded into a process, not into an object
    others, _known = _known, known
    try:
        yield
    finally:
        _known = others


def check_names(name: str, labels: Sequence[str]) -> Labels:
    """Return a metric's labels, if it may be called so and have them.

    Raises:
        ValueError: a name is not one to Prometheus, is reserved, or comes twice.
    """
    if isinstance(labels, str):
        raise ValueError(f"the labels of {name} are a list of names: ({labels!r},)")  # noqa: TRY004
    for one in (name, *labels):
        if not _NAME.fullmatch(one):
            raise ValueError(
                f"{one!r} is no name to Prometheus: use letters, digits and underscores, and no"
                " digit first"
            )
    for prefix in _RESERVED_NAMES:
        if name.startswith(prefix):
            raise ValueError(
                f"names that begin with {prefix} are the sidecar's: choose another than {name}"
            )
    for label in labels:
        if label in _RESERVED_LABELS or label.startswith("__"):
            raise ValueError(f"the label {label!r} of {name} is Prometheus' own; choose another")
    if len(set(labels)) < len(labels):
        raise ValueError(f"{name} has a label twice: {', '.join(labels)}")
    return tuple(labels)


def _register(new: _I) -> _I:
    # By the name without its ending: in Prometheus' text clicks and clicks_total are one metric.
    family = new.name.removesuffix("_total")
    known = _known.setdefault(family, new)
    if type(known) is not type(new) or _shape(known) != _shape(new):
        raise ValueError(
            f"there is a {known.kind} {known.name} already, with other help, labels or buckets;"
            " choose another name, or use that one"
        )
    return known


def _shape(one: Counter | Histogram) -> tuple[str, str, Labels, tuple[float, ...]]:
    return one.name, one.help, one.labels, one.buckets


def _text(values: Labels) -> Labels:
    # A value from a record may hold surrogate escapes, which no encoder on the way to /metrics
    # takes.
    return tuple([value.encode("utf-8", "backslashreplace").decode() for value in values])


def _values(one: Counter | Histogram, labels: dict[str, object]) -> Labels:
    try:
        values = tuple([str(labels[name]) for name in one.labels])
    except KeyError:
        values = None
    if values is None or len(labels) != len(values):
        raise ValueError(
            f"{one.name} has the labels ({', '.join(one.labels)}), not ({', '.join(labels)})"
        )
    return values
