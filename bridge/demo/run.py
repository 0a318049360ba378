"""The demo: events through a topic, the sidecar and back, with the real parts where they are."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from bridge.demo.stand_in import StandIn
from bridge.local.fluentd import Fluentd
from bridge.local.kafka import KafkaBroker, MockKafka
from bridge.local.processes import free_port
from bridge.local.sidecar import Sidecar
from bridge.local.topics import TopicReader, produce

FILTERS = Path(__file__).parent / "filters"
TOPICS = {"in": "ad", "out": "ad-filtered", "dead": "ad-dead-letters"}
# The mock cluster keeps 5 MiB a partition and has four of them.
MOST_EVENTS_ON_MOCK = 60_000
SHOWN = 3
_TIMEOUT = 300.0


@dataclass
class Parts:
    """Which parts of this run are real.

    Attributes:
        missing: the programs that are not there; none of them missing, all parts are real.
    """

    missing: list[str] = field(default_factory=list)

    @property
    def real(self) -> bool:
        """Whether Kafka and Fluentd are the real ones."""
        return not self.missing

    @classmethod
    def look(cls) -> Parts:
        """Return what this machine has."""
        reasons = (KafkaBroker.missing(), Fluentd.missing())
        return cls([reason for reason in reasons if reason])


@dataclass
class Outcome:
    """What became of the events.

    Attributes:
        sent: events written to the input topic.
        out: events in the output topic.
        dropped: events that filters dropped, as the sidecar counts them.
        dead: events in the dead-letter topic.
        rate: events a second, from the first that came out to the last.
        samples: input and output of some events.
        letters: dead letters, one a kind of reason.
    """

    sent: int
    out: int = 0
    dropped: int = 0
    dead: int = 0
    rate: float = 0.0
    samples: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    letters: list[dict[str, Any]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every event is accounted for, and none twice."""
        return self.sent == self.out + self.dropped + self.dead


def ad(number: int) -> dict[str, Any]:
    """Return an event: one in fifty of a crawler, two in a thousand wrong in their own ways."""
    return {
        "id": number,
        "url": f"http://site{number % 100}.example/path/{number}",
        "agent": "Googlebot/2.1" if number % 50 == 7 else "Mozilla/5.0 (X11; Linux x86_64)",
        "dial": "99" if number % 1000 == 333 else ("49", "33", "44")[number % 3],
        "price": -1 if number % 1000 == 666 else number % 500 / 100,
    }


def run(count: int, parts: Parts, progress: Callable[[str, int, int], None]) -> Outcome:
    """Send events through the pipeline and account for each.

    Args:
        count: how many.
        parts: what to use.
        progress: called with what is going on, how far it is, and how far it goes.

    Raises:
        ProgramError: a part did not start.
        TimeoutError: not all events came out.
    """
    outcome = Outcome(count)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fluent-bridge-")))
        progress("starting Kafka", 0, 0)
        kafka = KafkaBroker(folder / "kafka") if parts.real else MockKafka(folder / "kafka")
        stack.callback(kafka.stop)
        kafka.start()
        for topic in TOPICS.values():
            kafka.create_topic(topic, 4)
        progress("starting the sidecar", 0, 0)
        return_port = free_port()
        sidecar = Sidecar(FILTERS, folder, {"downstream.port": return_port})
        stack.callback(sidecar.stop)
        sidecar.start()
        produce(
            kafka.bootstrap,
            TOPICS["in"],
            (msgspec.json.encode(ad(number)) for number in range(count)),
            partitions=4,
            progress=lambda done: progress("writing events to Kafka", done, count),
        )
        progress("starting Fluentd" if parts.real else "starting Fluentd's stand-in", 0, 0)
        pipeline = _fluentd(parts, folder, kafka.bootstrap, sidecar.port, return_port)
        stack.callback(pipeline.stop)
        pipeline.start()
        with TopicReader(kafka.bootstrap, [TOPICS["out"], TOPICS["dead"]]) as reader:
            _account(outcome, reader, sidecar, progress)
    return outcome


def _fluentd(
    parts: Parts, folder: Path, bootstrap: str, sidecar_port: int, return_port: int
) -> Fluentd | StandIn:
    if not parts.real:
        return StandIn(bootstrap, TOPICS, sidecar_port=sidecar_port, port=return_port)
    return Fluentd(
        folder / "fluentd",
        {
            "KAFKA_BROKERS": bootstrap,
            "INPUT_TOPICS": TOPICS["in"],
            "OUTPUT_TOPIC": TOPICS["out"],
            "DEAD_LETTER_TOPIC": TOPICS["dead"],
            "DEAD_LETTER_FORMAT": "json",
            "SIDECAR_PORT": str(sidecar_port),
            "RETURN_PORT": str(return_port),
        },
    )


def _account(
    outcome: Outcome,
    reader: TopicReader,
    sidecar: Sidecar,
    progress: Callable[[str, int, int], None],
) -> None:
    began = first = time.monotonic()
    early = 0  # events that were out before the clock started
    while not outcome.complete:
        for message in reader.read(0.2):
            record = msgspec.json.decode(message.value)
            if message.topic == TOPICS["dead"]:
                outcome.dead += 1
                _keep_letter(outcome.letters, record)
            else:
                outcome.out += 1
                if len(outcome.samples) < SHOWN:
                    outcome.samples.append((ad(record["id"]), record))
        outcome.dropped = int(sidecar.metrics()["fluent_bridge_dropped_events_total"])
        done = outcome.out + outcome.dead + outcome.dropped
        if not early and done < outcome.sent:
            early, first = done, time.monotonic()
        progress("events through the pipeline", done, outcome.sent)
        if time.monotonic() - began > _TIMEOUT:
            raise TimeoutError(
                f"after {_TIMEOUT:.0f} s only {outcome.out} events were out, {outcome.dropped}"
                f" dropped and {outcome.dead} dead-lettered, of {outcome.sent}"
            )
    outcome.rate = (outcome.sent - early) / (time.monotonic() - first)


def _keep_letter(letters: list[dict[str, Any]], letter: dict[str, Any]) -> None:
    reasons = {(one["error"]["class"], one["error"]["message"]) for one in letters}
    if (letter["error"]["class"], letter["error"]["message"]) not in reasons:
        letters.append(letter)
