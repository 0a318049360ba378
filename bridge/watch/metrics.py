"""A sidecar's metrics at one moment."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from bridge.watch.port import Port, Refused, Unreachable

_PREFIX = "fluent_bridge_"


class Scrape:
    """What ``/metrics`` and ``/readyz`` said.

    Args:
        text: metrics in Prometheus' text format.
        ready: what ``/readyz`` said.
        moment: when, on the monotonic clock.

    Raises:
        ValueError: it is not that format.
    """

    def __init__(self, text: str, ready: Mapping[str, Any], moment: float) -> None:
        self.ready = ready
        self.moment = moment
        self._samples: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = tuple(sorted(sample.labels.items()))
                self._samples.setdefault(sample.name, {})[labels] = sample.value

    def value(self, name: str, **labels: str) -> float:
        """Return a metric's value, summed over the labels that are not given; 0 if it is not there.

        Args:
            name: its name, without our prefix; ``process_...`` for those of the process.
            labels: labels that it has to have.
        """
        wanted = labels.items()
        return sum(
            value for given, value in self._of(name).items() if wanted <= dict(given).items()
        )

    def labels(self, name: str, label: str) -> list[str]:
        """Return the values that a label of a metric has, in order."""
        return sorted(
            {dict(given)[label] for given in self._of(name) if label in dict(given)}, key=_natural
        )

    def info(self, name: str) -> dict[str, str]:
        """Return the labels of a metric that has one series."""
        return dict(next(iter(self._of(name)), ()))

    def _of(self, name: str) -> Mapping[tuple[tuple[str, str], ...], float]:
        return self._samples.get(name if name.startswith("process_") else _PREFIX + name, {})


def scrape(port: Port) -> Scrape:
    """Return a sidecar's metrics as they are now.

    Args:
        port: its admin port.

    Raises:
        Unreachable: there is none.
        Refused: something else answers there.
    """
    status, body = port.get("/metrics")
    moment = time.monotonic()
    if status != 200:
        raise Refused(status, f"{port.url}/metrics: status {status}; is it a sidecar's admin port?")
    _, ready = port.get("/readyz")
    try:
        taken = Scrape(body.decode(), json.loads(ready), moment)
    except ValueError as error:
        raise Unreachable(f"{port.url}: what answers there is no sidecar: {error}") from error
    if not taken.info("build_info"):
        raise Unreachable(
            f"{port.url}: what answers there is no sidecar: it has no fluent_bridge_ metrics"
        )
    return taken


def scrapes(port: Port, interval: float) -> Iterator[tuple[Scrape, Scrape]]:
    """Return what was and what is, an interval between them, for ever.

    Args:
        port: a sidecar's admin port.
        interval: seconds.

    Raises:
        Unreachable: there is none, or no longer.
        Refused: something else answers there.
    """
    before = scrape(port)
    due = time.monotonic()
    while True:
        due = max(due + interval, time.monotonic())
        time.sleep(max(due - time.monotonic(), 0))
        after = scrape(port)
        yield before, after
        before = after


def _natural(text: str) -> tuple[int, str]:
    return (int(text), "") if text.isdigit() else (1 << 30, text)
