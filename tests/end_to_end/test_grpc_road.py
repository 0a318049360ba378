"""Road B from Kafka to Kafka: its two configurations as they stand, while their sidecar is killed."""

import random
import threading
import time

import pytest
from ids import ENRICH, Tally, Topics, event
from units import Replica

from bridge.local.fluentd import configuration
from bridge.local.topics import TopicReader, paced, produce

pytestmark = [pytest.mark.fluentd, pytest.mark.kafka, pytest.mark.timeout(240)]

EVENTS = 30_000
RATE = 5_000
SETTLE = 3
PATIENCE = 60  # seconds without a new message after which no more is awaited


@pytest.fixture(params=["grpc-filter", "grpc-output"])
def road(request):
    return request.param


@pytest.fixture
def replica(road, kafka, unit_of_work, tmp_path):
    filters = tmp_path / "filters"
    filters.mkdir()
    (filters / "enrich.py").write_text(ENRICH)
    topics = Topics(kafka, f"{road}-{random.randrange(10**9)}", 3)
    one = Replica(
        "one",
        tmp_path,
        filters,
        kafka.bootstrap,
        topics,
        conf=configuration(road),
        SIDECAR_ADDRESS=f"unix:{tmp_path / 'one.sock'}",
        BUFFER_DIR=str(tmp_path / "buffers"),
        FORMAT="text",
    )
    one.topics = topics
    yield one
    one.kill()
    topics.delete()


def test_nothing_is_lost_when_the_sidecar_is_killed(road, kafka, replica, figures):
    topics = replica.topics
    tally = Tally(topics, EVENTS)
    producer = threading.Thread(
        target=produce,
        args=(kafka.bootstrap, topics.input, paced(map(event, range(EVENTS)), RATE)),
        kwargs={"partitions": 3},
    )
    killed = False
    replica.start()
    producer.start()
    with TopicReader(kafka.bootstrap, [topics.output, topics.dead]) as reader:
        while True:
            tally.take(reader.read(0.2))
            if not killed and tally.found > EVENTS / 4:
                replica.sidecar.kill()
                time.sleep(random.uniform(0, 2))
                replica.sidecar.start()
                killed = True
            quiet = time.monotonic() - tally.last
            if quiet > (SETTLE if tally.found == EVENTS else PATIENCE):
                break
    producer.join()
    missing = tally.missing()
    figures(
        f"{road}, {EVENTS:,} events, sidecar killed: {len(missing)} missing,"
        f" {tally.duplicates()} duplicates, {tally.dead} dead letters"
    )
    assert killed
    assert not missing, f"{len(missing)} missing, see {replica.log}\n{tally.where(missing)}"
    assert not tally.misplaced, f"{tally.misplaced[:20]}, see {replica.log}"
    assert tally.dead >= EVENTS // 500
