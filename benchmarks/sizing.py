"""How many pods and partitions a rate of events takes, computed from the costs in README.md.

    python -m benchmarks.sizing [--filters 2.4] [--rate 250k] [--fluentd-workers 1] [--sidecar-workers 1]

--filters is what `fluent-bridge bench` says of yours: µs an event, all parts of it. Without --rate the tables of
docs/kubernetes.md are printed. On another machine measure first: `make bench-kafka`.
"""

from __future__ import annotations

import argparse
import math
import re
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
ROAD = "Kafka exactly once"

HEADROOM = 0.7  # how busy the busiest part may be: the rest is for peaks, catching up, and a pod that is gone
BATCH = 5000  # BATCH_EVENTS
RATES = (10_000, 100_000, 1_000_000, 10_000_000)
PODS = (10, 100, 1000)
COORDINATOR_PARTITIONS = 50  # transaction.state.log.num.partitions, Kafka's default
FILTERS = (10.0, 50.0, 250.0)  # µs an event, beside the measured one
SIDECAR_MIB, PROGRAM_MIB = 75, 15  # the transport process; a worker beside its limit
LIMIT_MIB, IN_FLIGHT_MIB = 256, 128  # workers.memory_limit, delivery.bytes_in_flight of k8s/base
FLUENTD_MIB = 256  # its supervisor, and each worker
LEAST_PODS = 2  # one more than may be away


@dataclass(frozen=True)
class Costs:
    """CPU µs an event."""

    fluentd: float
    workers: float
    transport: float

    @property
    def sum(self) -> float:
        return self.fluentd + self.workers + self.transport

    def with_filters(self, workers: float) -> Costs:
        """Return them with other filters."""
        return Costs(self.fluentd, workers, self.transport)


@dataclass(frozen=True)
class Shape:
    """A pod: worker processes of Fluentd, each with one consumer, and of the sidecar."""

    fluentd: int
    sidecar: int

    @property
    def memory(self) -> int:
        """MiB to be requested, by the settings of k8s/base: twice the sidecar's workers while filters are loaded anew."""
        sidecar = SIDECAR_MIB + IN_FLIGHT_MIB + 2 * self.sidecar * (LIMIT_MIB + PROGRAM_MIB)
        return sidecar + FLUENTD_MIB * (self.fluentd + 1)

    def rate(self, costs: Costs) -> float:
        """Return the events a second that it does.

        A consumer does one thing after the other: a batch is read and written by Fluentd, or it is in the sidecar,
        cut over the workers. Consumers that call at the same time share these.
        """
        wait = costs.transport + costs.workers * self.fluentd / self.sidecar
        return HEADROOM * self.fluentd / (costs.fluentd + wait) * 1e6

    def pods(self, rate: float, costs: Costs) -> int:
        """Return how many of them a rate takes."""
        return max(LEAST_PODS, math.ceil(rate / self.rate(costs)))


SMALL, LARGE = (
    Shape(1, 1),
    Shape(1, 7),
)  # overlays/production; the least for slow filters on eight cores
SHAPES = (SMALL, Shape(2, 2), Shape(1, 3), LARGE)  # the second is components/multi-worker


def measured(readme: str) -> Costs:
    """Return the costs that stand in the README's table.

    Raises:
        ValueError: they are not there.
    """
    row = re.search(
        rf"^\| {ROAD} \| .*\| Fluentd ([\d.]+), workers ([\d.]+), sidecar ([\d.]+) \|",
        readme,
        re.MULTILINE,
    )
    if row is None:
        raise ValueError(f"README.md has no row for {ROAD!r} with the CPU of each part")
    return Costs(*map(float, row.groups()))


def series(shape: Shape, filters: int = 2, partitions: int = 1) -> int:
    """Return how many series Prometheus has of a pod, counted of a real one.

    Those that appear with the first event of their kind, as a worker's restart does, are not among them.
    """
    sidecar = 102 + 20 * shape.sidecar + 21 * filters
    fluentd = 31 * shape.fluentd + partitions
    return sidecar + fluentd + 2 * 5  # what Prometheus notes of each scrape


def rollout(pods: int, wait: float = 10.0, change: float = 15.0) -> float:
    """Return the hours for one pod after the other: minReadySeconds, and seconds for one to end and another to be ready.

    These were measured on two busy cores, by tests/kubernetes/test_pods.py: 50 s for two pods.
    """
    return pods * (wait + change) / 3600


def events(text: str) -> float:
    """Return the events a second that an argument means: 250000, 250k, 0.25M or 2.5e5.

    Raises:
        argparse.ArgumentTypeError: it means none.
    """
    units = {"k": 1e3, "m": 1e6}
    unit = units.get(text[-1:].lower())
    try:
        rate = float(text[:-1] if unit else text) * (unit or 1)
    except ValueError:
        rate = 0
    if not 0 < rate < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no rate: 250000, 250k, 0.25M or 2.5e5")
    return rate


def _k(rate: float) -> str:
    if rate >= 1_000_000:
        return f"{rate / 1_000_000:.3g}M"
    return f"{rate / 1000:.0f}k" if rate >= 10_000 else f"{rate / 1000:.1f}k"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def a_pod(costs: Costs) -> str:
    """Return the table of what one pod does."""
    kinds = [costs.workers, *FILTERS]
    head = ["Fluentd workers + sidecar workers", *(f"filters {one:g} µs" for one in kinds)]
    return _table(
        head,
        [
            [
                f"{shape.fluentd} + {shape.sidecar}",
                *(_k(shape.rate(costs.with_filters(one))) for one in kinds),
            ]
            for shape in SHAPES
        ],
    )


def rates(costs: Costs) -> str:
    """Return the table of what rates of events take."""
    rows = []
    for one in (costs.workers, 50.0):
        own = costs.with_filters(one)
        for rate in RATES:
            shape = SMALL if one == costs.workers else LARGE
            count = shape.pods(rate, own)
            rows.append(
                [
                    _k(rate),
                    f"{one:g} µs",
                    f"{rate * own.sum / 1e6:,.1f}",
                    f"{count:,} of {shape.fluentd} + {shape.sidecar}",
                    f"{count * (shape.fluentd + shape.sidecar):,}",
                    f"{count * shape.memory / 1024:,.1f}",
                    f"{count * shape.fluentd:,}",
                    f"{rate / BATCH:,.0f}",
                ]
            )
    head = [
        "events/s",
        "filters",
        "cores busy",
        "pods",
        "cores",
        "GiB",
        "partitions",
        "transactions/s",
    ]
    return _table(head, rows)


def pods(costs: Costs) -> str:
    """Return the table of what numbers of small pods bring with them."""
    head = [
        "pods of 1 + 1",
        "events/s",
        "members of the group",
        "connections to a broker",
        "transactional ids",
    ]
    head += ["of these in a partition of Kafka's", "series in Prometheus", "rollout"]
    return _table(
        head,
        [
            [
                f"{count:,}",
                _k(count * SMALL.rate(costs)),
                f"{count * SMALL.fluentd:,}",
                f"{2 * count * SMALL.fluentd:,}",  # a consumer's and a producer's
                f"{count * SMALL.fluentd:,}",
                f"{count * SMALL.fluentd / COORDINATOR_PARTITIONS:g}",
                f"{count * series(SMALL):,}",
                f"{rollout(count):.1f} h",
            ]
            for count in PODS
        ],
    )


def main() -> None:
    costs = measured(README.read_text())
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--filters", type=float, default=costs.workers, metavar="µs")
    parser.add_argument("--rate", type=events, metavar="EVENTS/S")
    parser.add_argument("--fluentd-workers", type=int, default=1)
    parser.add_argument("--sidecar-workers", type=int, default=1)
    given = parser.parse_args()
    if given.rate is None:
        print(a_pod(costs), rates(costs), pods(costs), sep="\n\n")
        return
    own, shape = (
        costs.with_filters(given.filters),
        Shape(given.fluentd_workers, given.sidecar_workers),
    )
    count = shape.pods(given.rate, own)
    print(
        f"{count} pods of {_k(shape.rate(own))} events/s each, {count * shape.fluentd} partitions or more,"
    )
    print(
        f"{given.rate * own.sum / 1e6:.1f} cores busy, {count * series(shape):,} series in Prometheus"
    )


if __name__ == "__main__":
    main()
