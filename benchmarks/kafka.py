"""What events cost from one Kafka topic to another: this project's roads, Fluentd alone, and Spark.

    python -m benchmarks.kafka [--events 2000000] [--rounds 3] [--spark-python PATH] [--markdown]

Everything reads the same topic of a real Kafka on this machine, written beforehand, runs the same
Python function on each event, and writes to a topic of its own, until all events are out. Rounds
alternate, and medians are compared: on a machine whose speed changes, only ratios of the same round
mean something. The broker's CPU is not counted.

What is counted is the steady state, from the moment when a fifth of the events are out: so neither a
program's start nor the warming-up of the JVM weighs on it. What these cost stands in columns of its
own: CPU until the first event was out, and CPU an event with all from the start counted.

Spark runs `local[2]` from the Python that --spark-python or SPARK_PYTHON names, which has pyspark,
pyarrow, pandas and msgspec; the Kafka connector of its version comes from Maven Central.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.cost import Processes, machine
from benchmarks.latency import RATE, Latency, Silent, latency
from benchmarks.roads import Road, SparkRoad, fluentds
from benchmarks.spark import Installed, NoSpark
from benchmarks.steady import Ends, Figures, Incomplete, measure
from bridge.local.fluentd import Fluentd
from bridge.local.kafka import KafkaBroker
from bridge.local.topics import produce

PARTITIONS = 4
WARM = 0.2
TIMEOUT = 600.0
SIZE = 211
# The stock plugins take so long that a part of the topic has to do.
SLOW = {"forward": 0.15, "stock": 0.15}
LATENCY = ("exactly-once", "at-least-once")
TOPIC = "ad"


def events(count: int) -> Iterator[bytes]:
    """Yield JSON documents of 211 bytes."""
    for i in range(count):
        document = (
            f'{{"id":{i},"url":"http://site{i % 100}.example/path/{i}",'
            f'"ua":"Mozilla/5.0 (X11; Linux x86_64)","country":"de","price":{i % 90}.25,'
            f'"ip":"10.1.2.3","campaign":{i % 500},"user":"user-{i % 9999}","type":"click",'
            f'"ok":true,"referrer":"'
        )
        yield f'{document}{"x" * (SIZE - 2 - len(document))}"}}'.encode()


class Bench:
    """A broker with the events on it, and the pipelines that are measured one after the other.

    Args:
        kafka: the broker, started.
        count: events in the topic.
        folder: for what pipelines keep while they run.
    """

    def __init__(self, kafka: KafkaBroker, count: int, folder: Path) -> None:
        self._kafka = kafka
        self._count = count
        self._folder = folder
        self._runs = 0

    def run(self, key: str, road: Road) -> Figures:
        """Run a pipeline over the events.

        Raises:
            Incomplete: not all came out; its log's last lines are in the message.
        """
        count = int(self._count * SLOW.get(key, 1))
        output, folder = self._place()
        ends = Ends(self._kafka.bootstrap, output)
        try:
            roots = road.start(self._kafka.bootstrap, (TOPIC, output), folder)
            processes = Processes(roots, road.role)
            figures = measure(processes, ends, count, warm=WARM, timeout=TIMEOUT)
            # Transactions' markers take offsets: without them there are fewer events than offsets.
            excess = 1.0 if key in SLOW else ends.all_read(count) / count
        except Incomplete as error:
            raise Incomplete(f"{road.name}: {error}\n{road.log()}") from error
        finally:
            ends.close()
            road.stop()
            self._clear(folder, output)
        return figures.over(excess)

    def latency(self, road: Road) -> Latency:
        """Run a pipeline on a topic of its own at a low rate.

        Raises:
            Silent: events did not come out; its log's last lines are in the message.
        """
        output, folder = self._place()
        given = f"{output}-in"
        self._kafka.create_topic(given, PARTITIONS)
        try:
            road.start(self._kafka.bootstrap, (given, output), folder)
            # Spark's first batches take seconds.
            warm = 20.0 if isinstance(road, SparkRoad) else 5.0
            return latency(self._kafka.bootstrap, (given, output), warm=warm, seconds=20)
        except Silent as error:
            raise Silent(f"{road.name}: {error}\n{road.log()}") from error
        finally:
            road.stop()
            self._clear(folder, output, given)

    def _place(self) -> tuple[str, Path]:
        self._runs += 1
        topic = f"{TOPIC}-out-{self._runs}"
        self._kafka.create_topic(topic, PARTITIONS)
        return topic, self._folder / str(self._runs)

    def _clear(self, folder: Path, *topics: str) -> None:
        self._kafka.delete_topics(*topics)
        shutil.rmtree(folder, ignore_errors=True)


def spark(python: Path | None, *, follow: bool = False) -> dict[str, SparkRoad]:
    """Return the Spark jobs, none with a line that says why where there can be none."""
    if python is None:
        print("Spark is left out: name a Python with pyspark by --spark-python", file=sys.stderr)
        return {}
    try:
        installed = Installed(python)
    except NoSpark as error:
        print(f"Spark is left out: {error}", file=sys.stderr)
        return {}
    kinds = ("arrow",) if follow else ("arrow", "pandas", "arrow-row", "row")
    return {f"spark-{kind}": SparkRoad(installed, kind, follow=follow) for kind in kinds}


Results = dict[str, list[Figures]]


def show(names: dict[str, str], rounds: Results) -> None:
    """Print the table: medians over the rounds, of ratios too."""
    sparks = [key for key in rounds if key.startswith("spark")]

    def median(key: str, value: Callable[[Figures], float]) -> float:
        return statistics.median(map(value, rounds[key]))

    def ratio(key: str) -> str:
        if not sparks:
            return ""
        return f"{statistics.median(mine.cpu_sum / min(rounds[one][turn].cpu_sum for one in sparks) for turn, mine in enumerate(rounds[key])):.2f}"

    rows = [
        (
            names[key],
            f"{median(key, lambda one: one.events_per_second) / 1e3:,.0f}k",
            ", ".join(
                f"{role} {median(key, lambda one, role=role: one.cpu.get(role, 0.0)) * 1e6:.1f}"
                for role in rounds[key][0].cpu
            ),
            f"{median(key, lambda one: one.cpu_sum) * 1e6:.1f}",
            ratio(key),
            f"{median(key, lambda one: one.cpu_to_first):.0f}",
            f"{median(key, lambda one: one.cpu_whole) * 1e6:.1f}",
            f"{max(one.memory for one in rounds[key]) >> 20:,}",
        )
        for key in rounds
    ]
    header = (
        "pipeline",
        "events/s",
        "CPU µs an event",
        "sum",
        "÷ Spark's best",
        "CPU s to the first event",
        "µs an event with the start",
        "MiB (PSS)",
    )
    _print(header, rows)


def show_latencies(names: dict[str, str], latencies: dict[str, list[Latency]]) -> None:
    """Print the table of latencies: medians over the rounds."""
    rows = [
        (
            names[key],
            *(
                f"{statistics.median(getattr(one, which) for one in found):,.0f} ms"
                for which in ("p50", "p99", "worst")
            ),
        )
        for key, found in latencies.items()
    ]
    _print((f"pipeline, at {RATE:,} events/s", "p50", "p99", "worst"), rows)


def _print(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    for row in (header, ("---",) * len(header), *rows):
        print("| " + " | ".join(row) + " |")
    print()


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=2_000_000, help="events in the topic")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind")
    parser.add_argument(
        "--only", nargs="+", help="pipelines, by the names that runs are shown under"
    )
    parser.add_argument("--latency", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--spark-python",
        type=Path,
        default=os.environ.get("SPARK_PYTHON"),
        help="a Python with pyspark; by default SPARK_PYTHON",
    )
    options = parser.parse_args()
    for why in (KafkaBroker.missing(), Fluentd.missing()):
        if why is not None:
            sys.exit(f"nothing can be measured here: {why}")

    roads: dict[str, Road] = {**fluentds(), **spark(options.spark_python)}
    followers: dict[str, Road] = {
        **{key: road for key, road in fluentds().items() if key in LATENCY},
        **(spark(options.spark_python, follow=True) if options.spark_python else {}),
    }
    for chosen in (roads, followers):
        for key in set(chosen) - set(options.only or chosen):
            del chosen[key]
    results: Results = {key: [] for key in roads}
    latencies: dict[str, list[Latency]] = {key: [] for key in followers}
    with tempfile.TemporaryDirectory(prefix="fluent-bridge-") as place:
        folder = Path(place)
        kafka = KafkaBroker(folder / "kafka")
        try:
            kafka.start()
            kafka.create_topic(TOPIC, PARTITIONS)
            produce(kafka.bootstrap, TOPIC, events(options.events), partitions=PARTITIONS)
            bench = Bench(kafka, options.events, folder)
            for turn in range(options.rounds):
                for key, road in roads.items():
                    results[key].append(figures := bench.run(key, road))
                    print(f"{turn + 1}: {key}: {figures}", file=sys.stderr, flush=True)
                for key, road in followers.items() if options.latency else ():
                    latencies[key].append(found := bench.latency(road))
                    print(f"{turn + 1}: {key}: {found}", file=sys.stderr, flush=True)
        finally:
            kafka.stop()
    show({key: road.name for key, road in roads.items()}, results)
    if options.latency:
        show_latencies({key: road.name for key, road in followers.items()}, latencies)
    print(
        f"{machine()}; Kafka on the same cores, {options.events:,} events of {SIZE} bytes in"
        f" {PARTITIONS} partitions, medians of {options.rounds} rounds."
    )


if __name__ == "__main__":
    main()
