"""Road A whole: a real Kafka, two real Fluentds in one consumer group, their sidecars, and faults."""

import os
import random
import signal
import threading
import time

import msgpack
import msgspec
import pytest

from bridge.local.kafka import create_topic
from bridge.local.sidecar import Sidecar
from bridge.local.topics import TopicReader, produce

pytestmark = [pytest.mark.fluentd, pytest.mark.kafka, pytest.mark.timeout(400)]

EVENTS = 200_000
PARTITIONS = 4
SETTLE = 3  # seconds without a new message after the last one awaited

FILTERS = """
import bridge

@bridge.filter("ad*")
def enrich(record: dict) -> dict | None:
    number = record["id"]
    if number % 1000 == 7:
        return None
    if number % 1000 == 13:
        raise bridge.Reject("unlucky")
    record["site"] = record["url"].split("/", 3)[2]
    return record
"""


def is_dropped(number):
    return number % 1000 == 7


def is_rejected(number):
    return number % 1000 == 13


class Replica:
    """What a pod is: a Fluentd and its sidecar."""

    def __init__(self, name, folder, filters, fluentd, kafka, topics):
        self.name = name
        sidecar_folder = folder / f"sidecar-{name}"
        self.fluentd = fluentd(
            folder / f"fluentd-{name}",
            {
                "KAFKA_BROKERS": kafka.bootstrap,
                "KAFKA_GROUP": topics["in"],
                "INPUT_TOPICS": topics["in"],
                "OUTPUT_TOPIC": topics["out"],
                "DEAD_LETTER_TOPIC": topics["dead"],
            },
        )
        self.sidecar = Sidecar(
            filters,
            sidecar_folder,
            {
                "downstream.port": self.fluentd.return_port,
                "delivery.window_file": folder / f"window-{name}",
                "workers.count": 1,
            },
        )
        self.fluentd.settings["SIDECAR_PORT"] = str(self.sidecar.port)

    def start(self):
        self.sidecar.start()
        self.fluentd.start()

    def stop(self):
        self.fluentd.stop()
        self.sidecar.stop()


class Tally:
    """How often each id came out."""

    def __init__(self):
        self.out = bytearray(EVENTS)
        self.dead = bytearray(EVENTS)
        self.last = time.monotonic()
        self.found = 0

    def take(self, messages, dead_topic):
        for message in messages:
            if message.topic == dead_topic:
                letter = msgpack.unpackb(message.value)
                assert letter["error"]["class"] == "Reject"
                counts, number = self.dead, letter["record"]["id"]
            else:
                record = msgspec.json.decode(message.value)
                assert record["site"] == f"site{record['id'] % 100}.example"
                counts, number = self.out, record["id"]
            self.found += not counts[number]
            counts[number] += 1
            self.last = time.monotonic()

    def missing(self):
        return [
            number
            for number in range(EVENTS)
            if not (self.dead if is_rejected(number) else self.out)[number]
            and not is_dropped(number)
        ]

    def duplicates(self):
        return sum(count - 1 for counts in (self.out, self.dead) for count in counts if count)

    def misplaced(self):
        return [
            number
            for number in range(EVENTS)
            if (self.out[number] and (is_dropped(number) or is_rejected(number)))
            or (self.dead[number] and not is_rejected(number))
        ]


@pytest.fixture
def road(kafka, fluentd, tmp_path, figures):
    """Return a function: run a fault while events flow → the tally."""
    filters = tmp_path / "filters"
    filters.mkdir()
    (filters / "enrich.py").write_text(FILTERS)
    name = tmp_path.name[:30].replace("_", "-")
    topics = {kind: f"ad-{name}-{kind}-{random.randrange(10**9)}" for kind in ("in", "out", "dead")}
    for topic in topics.values():
        create_topic(kafka.bootstrap, topic, PARTITIONS)
    replicas = [Replica(str(i), tmp_path, filters, fluentd, kafka, topics) for i in range(2)]

    def run(fault, timeout):
        produce(
            kafka.bootstrap,
            topics["in"],
            (
                b'{"id":%d,"url":"http://site%d.example/path/%d","ua":"Mozilla/5.0 (X11)","price":%d.5}'
                % (number, number % 100, number, number % 90)
                for number in range(EVENTS)
            ),
            partitions=PARTITIONS,
        )
        starters = [threading.Thread(target=replica.start) for replica in replicas]
        began = time.monotonic()
        for starter in starters:
            starter.start()
        for starter in starters:
            starter.join()
        expected = sum(not is_dropped(number) for number in range(EVENTS))
        tally = Tally()
        thread = None
        failures = []

        def inject():
            try:
                fault(replicas, kafka)
            except BaseException as error:
                failures.append(error)

        with TopicReader(kafka.bootstrap, [topics["out"], topics["dead"]]) as reader:
            while True:
                tally.take(reader.read(0.2), topics["dead"])
                now = time.monotonic()
                if thread is None and tally.found > expected * 0.15:
                    thread = threading.Thread(target=inject)
                    thread.start()
                if tally.found == expected and now - tally.last > SETTLE and not thread.is_alive():
                    break
                if now - began > timeout:
                    break
        thread.join()
        assert not failures, failures
        took = tally.last - began
        figures(
            f"{EVENTS} events, {fault.__name__}: {len(tally.missing())} missing,"
            f" {tally.duplicates()} duplicates, {sum(map(bool, tally.dead))} dead-lettered,"
            f" {took:.0f} s, {EVENTS / took:,.0f} events/s"
        )
        return tally

    yield run
    for replica in replicas:
        replica.stop()


def nothing(_replicas, _kafka):
    """No fault."""


def kill_workers(replicas, _kafka):
    for replica in replicas:
        for pid in replica.sidecar.worker_pids:
            os.kill(pid, signal.SIGKILL)
        time.sleep(1)


def kill_a_sidecar(replicas, _kafka):
    replicas[0].sidecar.kill()
    time.sleep(1)
    replicas[0].sidecar.start()


def kill_a_fluentd(replicas, _kafka):
    replicas[0].fluentd.kill()
    time.sleep(1)
    replicas[0].fluentd.start()


def stop_the_broker_for_20_seconds(_replicas, kafka):
    kafka.stop()
    time.sleep(20)
    kafka.start()


def restart_everything_in_turn(replicas, _kafka):
    for replica in replicas:
        assert replica.fluentd.stop() == 0
        replica.fluentd.start()
        assert replica.sidecar.stop() == 0
        replica.sidecar.start()


# Kafka away: kafka_group may forget what it read after its last commit, a fetch a replica (max_bytes).
A_FETCH_A_REPLICA = 2 * 262_144 // 80
# SIGTERM: in_forward may end between the writing of a chunk and its acknowledgement.
A_CHUNK_A_CONNECTION = 2 * 2 * (1 << 20) // 80


@pytest.mark.parametrize(
    ("fault", "most_duplicates"),
    [
        (nothing, 0),
        (kill_workers, 0),
        (kill_a_sidecar, EVENTS),
        (kill_a_fluentd, EVENTS),
        (stop_the_broker_for_20_seconds, A_FETCH_A_REPLICA),
        (restart_everything_in_turn, A_CHUNK_A_CONNECTION),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_every_id_comes_out(road, fault, most_duplicates):
    tally = road(fault, timeout=300)
    assert tally.missing() == []
    assert tally.misplaced() == []
    assert tally.duplicates() <= most_duplicates
