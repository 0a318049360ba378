"""Road C while its sidecar is away: what a pipeline does that must not do anything."""

import random
import re
import threading
import time

import pytest
from ids import ENRICH, Tally, Topics, event
from units import Replica

from bridge.local.topics import TopicReader, paced, produce

pytestmark = [pytest.mark.fluentd, pytest.mark.kafka, pytest.mark.timeout(240)]

EVENTS = 60_000
RATE = 2_000
AWAY = 30  # seconds
SETTLE = 3
# Waits double from retry_wait (0.5 s) to retry_max_interval (10 s): 0.5, 1, 2, 4, 8, 10 and 10 s in 30 s.
MOST_LINES = 8


@pytest.fixture
def replica(kafka, unit_of_work, tmp_path):
    filters = tmp_path / "filters"
    filters.mkdir()
    (filters / "enrich.py").write_text(ENRICH)
    topics = Topics(kafka, f"away-{random.randrange(10**9)}", 3)
    one = Replica("one", tmp_path, filters, kafka.bootstrap, topics)
    one.topics = topics
    yield one
    one.kill()
    topics.delete()


def test_nothing_passes_unfiltered_or_is_lost_and_the_log_stays_readable(kafka, replica, figures):
    topics = replica.topics
    tally = Tally(topics, EVENTS)
    values = paced(map(event, range(EVENTS)), RATE)
    producer = threading.Thread(
        target=produce, args=(kafka.bootstrap, topics.input, values), kwargs={"partitions": 3}
    )
    with TopicReader(kafka.bootstrap, [topics.output, topics.dead]) as reader:

        def read(enough, timeout):
            deadline = time.monotonic() + timeout
            while not enough() and time.monotonic() < deadline:
                tally.take(reader.read(0.2))

        replica.start()
        producer.start()
        read(lambda: tally.found > EVENTS / 10, 60)
        assert tally.found > EVENTS / 10
        log_then = replica.fluentd.output()
        replica.sidecar.kill()
        read(lambda: False, 2)  # what was committed just before
        out_then = tally.found
        read(lambda: False, AWAY - 2)
        lines = replica.fluentd.output()[len(log_then) :].splitlines()
        assert tally.found == out_then, "events came out while there was no sidecar"
        replica.sidecar.start()
        read(lambda: tally.found == EVENTS, 90)
        read(lambda: False, SETTLE)
    producer.join()
    steps = [line for line in lines if "comes again" in line]
    figures(
        f"sidecar away {AWAY} s: {len(lines)} lines in Fluentd's log, {len(steps)} backoff steps"
    )
    where = f"see {replica.log}"
    missing, twice = tally.missing(), tally.twice()
    assert not missing, f"{len(missing)} missing, {where}\n{tally.where(missing)}"
    assert not twice, f"{len(twice)} twice, {where}\n{tally.where(twice)}"
    assert not tally.misplaced, f"{tally.misplaced[:20]}, {where}"
    # One line a step, no trace of a stack, and it says what is away and what happens now.
    assert 1 <= len(steps) == len(lines) <= MOST_LINES, f"{where}\n" + "\n".join(lines)
    for line in steps:
        assert re.match(r"\d{4}-\d\d-\d\d \S+ \S+ \[warn\]: ", line)
        assert replica.fluentd.settings["SIDECAR_SOCKET"] in line
        assert "wait=" in line
