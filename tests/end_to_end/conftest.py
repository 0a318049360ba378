"""A pipeline of road A with a relay where the sidecar stands."""

import json
import subprocess
import time
import uuid
from collections import Counter

import pytest
from relay import Relay

from bridge.local.fluentd import PROGRAM, Fluentd, configuration, plugin
from bridge.local.topics import TopicReader, produce

PARTITIONS = 4


class Pipeline:
    """Topics of its own, Fluentds in one group, and a relay for each."""

    def __init__(self, kafka, fluentd, free_port, folder, replicas=1, **settings):
        self.kafka = kafka
        name = f"ad-{uuid.uuid4().hex[:12]}"
        self.input, self.output, self.dead_letters = (
            f"{name}.{end}" for end in ("in", "out", "dead")
        )
        for topic in (self.input, self.output, self.dead_letters):
            kafka.create_topic(topic, PARTITIONS)
        self.fluentds, self.relays = [], []
        for number in range(replicas):
            port = free_port()
            process = fluentd(
                folder / f"fluentd-{number}",
                {
                    "KAFKA_BROKERS": kafka.bootstrap,
                    "KAFKA_GROUP": name,
                    "INPUT_TOPICS": self.input,
                    "OUTPUT_TOPIC": self.output,
                    "DEAD_LETTER_TOPIC": self.dead_letters,
                    "SIDECAR_PORT": str(port),
                    **settings,
                },
            )
            self.fluentds.append(process)
            self.relays.append(Relay(port, process.return_port))

    def start(self):
        for relay in self.relays:
            relay.start()
        for process in self.fluentds:
            process.start()

    def produce(self, values):
        produce(self.kafka.bootstrap, self.input, values, partitions=PARTITIONS)

    def produce_ids(self, ids):
        self.produce(
            json.dumps(
                {"id": number, "url": f"https://example.com/{number}", "price": 1.25}
            ).encode()
            for number in ids
        )

    def ids(self, count, timeout=60, settle=2):
        """Read the output until it holds so many ids and nothing more came → how often each."""
        counts = Counter()
        deadline = time.monotonic() + timeout
        last = time.monotonic()
        with TopicReader(self.kafka.bootstrap, [self.output]) as reader:
            while len(counts) < count or time.monotonic() < last + settle:
                if messages := reader.read(0.2):
                    last = time.monotonic()
                for message in messages:
                    counts[json.loads(message.value)["id"]] += 1
                if time.monotonic() > deadline:
                    break
        return counts


@pytest.fixture
def pipeline(kafka, fluentd, free_port, tmp_path):
    made = []

    def make(replicas=1, **settings):
        made.append(Pipeline(kafka, fluentd, free_port, tmp_path, replicas, **settings))
        return made[-1]

    yield make
    for one in made:
        for process in one.fluentds:
            process.kill()
        for relay in one.relays:
            relay.stop()


@pytest.fixture(scope="session")
def unit_of_work():
    """Skip where there is no Fluentd on the PATH that has the gems of fluent-plugin-bridge."""
    if why := Fluentd.missing():
        pytest.skip(why)
    dry = subprocess.run(
        [PROGRAM, "--dry-run", "--config", str(configuration("exactly-once")), *plugin()],
        capture_output=True,
        text=True,
    )
    if "cannot load such file" in dry.stdout + dry.stderr:
        pytest.skip(f"a gem that fluent-plugin-bridge needs is missing:\n{dry.stdout}{dry.stderr}")
