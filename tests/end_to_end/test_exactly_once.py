"""Road C whole: a real Kafka, replicas of Fluentd and sidecar in one group, and faults while events flow.

Each fault is done three times in its run, at random moments, a quarter of the events before, between and after
them each. BRIDGE_TEST_SEED repeats a run's moments.
"""

import os
import random
import re
import signal
import threading
import time

import pytest
from ids import ENRICH, Tally, Topics, event
from units import SESSION_TIMEOUT, TRANSACTION_TIMEOUT, Replica, start_all

from bridge.local.fluentd import configuration
from bridge.local.kafka import BROKER_SESSION_TIMEOUT, KafkaBroker
from bridge.local.topics import TopicReader, paced, produce

pytestmark = [pytest.mark.fluentd, pytest.mark.kafka, pytest.mark.timeout(400)]

# How many, and how many a second.
EVENTS = {"exactly_once": (500_000, 25_000), "at_least_once": (200_000, 20_000)}
PARTITIONS = 3
TIMES = 3
SETTLE = 3  # seconds without a new message after the last one awaited
PATIENCE = 100  # seconds without a new message after which no more is awaited

# A file named `slow` beside the filters is an order: whoever removes it first makes its batch last longer than a
# transaction may. Only where it comes by for the second time, and only a batch of which an event was refused the
# first time: then its dead letter is in the transaction already. One without would begin no transaction on the broker
# before its results are there, and nothing would time out.
DAWDLE = f"""
import os
import time
import bridge

SLOW = os.path.join(os.path.dirname(__file__), "slow")

@bridge.batch("**")
def dawdle(records: list[dict]) -> list[dict]:
    if "site" not in records[0]:
        if any(record["id"] % 500 == 13 for record in records):
            for record in records:
                record["one_refused"] = True
        return records
    if [record.pop("one_refused", False) for record in records][0]:
        try:
            os.unlink(SLOW)
        except FileNotFoundError:
            return records
        time.sleep({TRANSACTION_TIMEOUT + 4})
    return records
"""


def twice_filtered(folder):
    """Return the configuration with its filter in it twice."""
    text = configuration("exactly-once").read_text()
    (block,) = re.findall(r"  <filter \*\*>\n    @type bridge\n.*?</filter>\n", text, re.DOTALL)
    conf = folder / "twice.conf"
    conf.write_text(text.replace(block, block + block.replace("@id sidecar", "@id again")))
    return conf


class Road:
    """Topics, replicas that read them, and a random number generator of a known seed."""

    def __init__(self, kafka, folder, name, delivery, *, dawdling):
        self.kafka = kafka
        self.delivery = delivery
        self.folder = folder
        self.seed = int(os.environ.get("BRIDGE_TEST_SEED") or random.randrange(10**6))
        self.random = random.Random(self.seed)
        self.filters = folder / "filters"
        self.filters.mkdir()
        (self.filters / "10_enrich.py").write_text(ENRICH)
        if dawdling:
            (self.filters / "05_dawdle.py").write_text(DAWDLE)
        self.conf = twice_filtered(folder) if dawdling else None
        self.topics = Topics(kafka, f"{name}-{random.randrange(10**9)}", PARTITIONS)
        self.gates = [threading.Event() for _ in range(TIMES + 1)]
        self.failures = []
        self.replicas = []
        for name in ("one", "two"):
            self.add(name)

    def add(self, name):
        replica = Replica(
            name,
            self.folder,
            self.filters,
            self.kafka.bootstrap,
            self.topics,
            conf=self.conf,
            DELIVERY=self.delivery,
        )
        self.replicas.append(replica)
        return replica

    def any(self):
        return self.random.choice(self.replicas[:2])

    def logs(self):
        return "\n".join(str(replica.log) for replica in self.replicas)

    def events(self, numbers, rate):
        """Yield events; those of each part wait until the fault before it is over."""
        for turn, gate in enumerate(self.gates):
            gate.wait()
            begin, end = (len(numbers) * index // len(self.gates) for index in (turn, turn + 1))
            yield from paced(map(event, numbers[begin:end]), rate)

    def produce(self, count, rate):
        try:
            values = self.events(range(count), rate)
            produce(
                self.kafka.bootstrap, self.topics.input, values, partitions=PARTITIONS, timeout=120
            )
        except BaseException as error:
            self.failures.append(error)

    def inject(self, fault, tally, seconds):
        """Do the fault again and again, each time at a random moment after events have begun to flow."""
        try:
            for gate in self.gates[1:]:
                found = tally.found
                deadline = time.monotonic() + PATIENCE
                while tally.found == found:
                    assert time.monotonic() < deadline, "nothing flows, so no fault can be done"
                    time.sleep(0.05)
                time.sleep(self.random.uniform(0, seconds))
                fault(self)
                gate.set()
        except BaseException as error:
            self.failures.append(error)
        finally:
            for gate in self.gates:
                gate.set()

    def run(self, fault, count, rate):
        """Produce so many events at so many a second, with faults meanwhile → the tally."""
        tally = Tally(self.topics, count)
        start_all(self.replicas)
        # The part of the events that a fault is done in lasts longer than until the fault at most.
        seconds = 0.8 * count / rate / len(self.gates)
        threads = [
            threading.Thread(target=self.inject, args=(fault, tally, seconds)),
            threading.Thread(target=self.produce, args=(count, rate)),
        ]
        for thread in threads:
            thread.start()
        self.gates[0].set()
        with TopicReader(self.kafka.bootstrap, [self.topics.output, self.topics.dead]) as reader:
            while True:
                tally.take(reader.read(0.2))
                quiet = time.monotonic() - tally.last
                busy = any(thread.is_alive() for thread in threads)
                if quiet > (SETTLE if tally.found == count and not busy else PATIENCE):
                    break
        for thread in threads:
            thread.join()
        assert not self.failures, (
            f"{self.failures}, seed {self.seed}; see the logs\n{self.logs()}\n{tally.where([])}"
        )
        return tally


@pytest.fixture(scope="module")
def kafka(tmp_path_factory):
    """A broker that may be killed in the middle of a transaction: see KafkaBroker."""
    if why := KafkaBroker.missing():
        pytest.skip(why)
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka"), controller_apart=True)
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


@pytest.fixture
def road(kafka, unit_of_work, tmp_path):
    """Return a function that makes a Road; nothing of it is left running."""
    made = []

    def make(delivery, *, dawdling=False):
        name = tmp_path.name[:20].replace("_", "-")
        made.append(Road(kafka, tmp_path, name, delivery, dawdling=dawdling))
        return made[-1]

    yield make
    for one in made:
        for replica in one.replicas:
            replica.kill()
        if not kafka.running:
            kafka.start()
        one.topics.delete()


def nothing(_road):
    """No fault."""


def kill_fluentd(road):
    fluentd = road.any().fluentd
    if road.random.random() < 0.3:
        fluentd.kill_worker()  # its supervisor starts another
        return
    fluentd.kill()
    time.sleep(road.random.uniform(0, 2))
    fluentd.start()


def kill_sidecar(road):
    replica = road.any()
    replica.sidecar.kill()
    time.sleep(road.random.uniform(0, 2))
    replica.sidecar.start()


def kill_sidecar_worker(road):
    for pid in road.any().sidecar.worker_pids:
        os.kill(pid, signal.SIGKILL)


def kill_broker(road):
    road.kafka.kill()
    # Sooner, and Kafka itself loses transactions: see KafkaBroker.
    time.sleep(BROKER_SESSION_TIMEOUT + road.random.uniform(1, 3))
    road.kafka.start()


def add_and_remove_a_replica(road):
    if len(road.replicas) == 2:
        road.add("three").sidecar.start()
    road.replicas[2].fluentd.start()
    time.sleep(road.random.uniform(2, 5))
    assert road.replicas[2].fluentd.stop() == 0


def freeze_fluentd_past_the_session_timeout(road):
    fluentd = road.any().fluentd
    fluentd.freeze()
    # Now and then past the transaction timeout too.
    time.sleep(road.random.uniform(SESSION_TIMEOUT + 2, TRANSACTION_TIMEOUT + 4))
    fluentd.thaw()


def outlast_the_transaction_timeout(road):
    slow = road.filters / "slow"
    slow.touch()
    while slow.exists():
        time.sleep(0.1)
    time.sleep(TRANSACTION_TIMEOUT + 4)


@pytest.mark.parametrize("delivery", EVENTS)
@pytest.mark.parametrize(
    "fault",
    [
        nothing,
        kill_fluentd,
        kill_sidecar,
        kill_sidecar_worker,
        kill_broker,
        add_and_remove_a_replica,
        freeze_fluentd_past_the_session_timeout,
        outlast_the_transaction_timeout,
    ],
    ids=lambda fault: fault.__name__,
)
def test_every_id_comes_out(road, figures, fault, delivery):
    count, rate = EVENTS[delivery]
    began = time.monotonic()
    one = road(delivery, dawdling=fault is outlast_the_transaction_timeout)
    tally = one.run(fault, count, rate)
    missing, twice = tally.missing(), tally.twice()
    figures(
        f"{delivery}, {fault.__name__}, {count:,} events, seed {one.seed}: {len(missing)} missing,"
        f" {tally.duplicates()} duplicates, {tally.dead} dead letters,"
        f" {time.monotonic() - began:.0f} s"
    )
    explanation = f"seed {one.seed}; see the logs\n{one.logs()}\n"
    assert not missing, f"{len(missing)} missing, {explanation}{tally.where(missing)}"
    assert not tally.misplaced, f"not filtered, or not where it belongs: {tally.misplaced[:20]}"
    if delivery == "exactly_once":
        assert not twice, f"{len(twice)} twice, {explanation}{tally.where(twice)}"
    if fault is outlast_the_transaction_timeout and delivery == "exactly_once":
        failed = sum(replica.log.read_text().count("comes again") for replica in one.replicas)
        assert failed >= TIMES, f"only {failed} transactions failed, {explanation}"
