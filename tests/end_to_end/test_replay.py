"""Dead letters back into their topic, on a real Kafka: each once, whatever is killed."""

import io
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import SimpleNamespace

import msgspec
import pytest
import structlog.testing
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    Producer,
    TopicPartition,
)
from ids import ENRICH, Topics, event
from units import Replica

from bridge.cli import main
from bridge.forward import codec
from bridge.local.sink import Sink
from bridge.local.topics import produce
from bridge.replay.cluster import Cluster, Contents

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

PARTITIONS = 3
LETTERS = 3_000

BUG = ENRICH.replace(
    '    record["site"]',
    '    if record["id"] % 5 == 0:\n        record["price"] / record["discount"]\n    record["site"]',
)
MENDED = BUG.replace('record["price"] / record["discount"]', "pass")


def command(kafka, *arguments):
    return [
        sys.executable,
        "-m",
        "bridge",
        "replay",
        "--brokers",
        kafka.bootstrap,
        *arguments,
    ]


def replay(kafka, *arguments):
    """Run in this process, which saves the start of another."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(["replay", "--brokers", kafka.bootstrap, *arguments])
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


@contextmanager
def started(kafka, *arguments):
    """Start a run that is killed in the end if it still runs."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command(kafka, *arguments), **pipes) as run:
        try:
            yield run
        finally:
            run.kill()


def summary(kafka, *arguments):
    """Return the summary line of a run that is right."""
    done = replay(kafka, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def letter(number, **fields):
    return {
        "error": {
            "class": "Reject" if number % 2 else "KeyError",
            "message": f"no site\n{number}",
            "filter": "enrich" if number % 3 else None,
            "traceback": None,
            "attempts": 1 + number % 2,
        },
        "tag": "ad",
        "time": "2026-11-22T09:30:00.500000000Z",
        "record": {"message": b'{"id":%d}' % number},
        **fields,
    }


def as_msgpack(number, **fields):
    return msgspec.msgpack.encode(letter(number, **fields))


def as_json(number, **fields):
    record = fields.pop("record", {"message": json.dumps({"id": number})})
    return json.dumps(letter(number, record=record, **fields)).encode()


def read(kafka, *topics):
    """Return all messages of topics that are committed now."""
    places = [TopicPartition(t, n, OFFSET_BEGINNING) for t in topics for n in range(PARTITIONS)]
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "group.id": "fluent-bridge-test",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
        }
    )
    consumer.list_topics(timeout=10)  # else it looks for the leaders half a second after
    consumer.assign(places)
    messages = []
    left = {(place.topic, place.partition) for place in places}
    while left:
        for message in consumer.consume(5_000, 0.02):
            if message.error() is None:
                messages.append(message)
            elif message.error().code() == KafkaError._PARTITION_EOF:
                left.discard((message.topic(), message.partition()))
    consumer.close()
    return messages


def ids(kafka, topic):
    return Counter(json.loads(message.value())["id"] for message in read(kafka, topic))


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    # The sink is in this process, and is not to be seen.
    structlog.configure(processors=[], logger_factory=structlog.testing.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture
def topics(kafka, tmp_path):
    made = Topics(kafka, f"replay-{random.randrange(10**9)}", PARTITIONS)
    made.road = ("--from-topic", made.dead, "--to-topic", made.input)
    made.ledger = f"{made.dead}.replayed"
    yield made
    made.delete()


@pytest.fixture
def replica(kafka, unit_of_work, topics, tmp_path):
    filters = tmp_path / "filters"
    filters.mkdir()
    (filters / "enrich.py").write_text(BUG)
    one = Replica("one", tmp_path, filters, kafka.bootstrap, topics)
    one.filters = filters / "enrich.py"
    yield one
    one.kill()


def until(true, timeout=60):
    deadline = time.monotonic() + timeout
    while not true() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert true()


@pytest.mark.fluentd
def test_what_a_bug_refused_comes_out_once_when_it_is_mended(kafka, replica, topics):
    count, by_bug, by_right = 1_000, 200, 2
    dead = by_bug + by_right
    replica.start()
    produce(kafka.bootstrap, topics.input, map(event, range(count)), partitions=PARTITIONS)
    until(lambda: len(read(kafka, topics.output, topics.dead)) == count)
    assert len(read(kafka, topics.dead)) == dead
    replica.filters.write_text(MENDED)
    replica.sidecar.stop()
    replica.sidecar.start()

    bug = ("--where", "error.class=KeyError")
    before = f"{dead} letters read, 100 replayed, {dead - 100} not selected, 0 replayed before\n"
    assert summary(kafka, *topics.road, *bug, "--where", "record.id~0$") == before
    with started(kafka, *topics.road, *bug, "--rate", "20") as killed:
        until(lambda: len(read(kafka, topics.input)) > count + 100)
        killed.kill()
    done = summary(kafka, *topics.road, *bug)
    numbers = [int(part.split()[0]) for part in done.split(", ")]
    assert numbers[0] == numbers[1] + numbers[2] + numbers[3] == dead
    assert 0 < numbers[1] < 100
    over = f"{dead} letters read, 0 replayed, {by_right} not selected, {by_bug} replayed before\n"
    assert summary(kafka, *topics.road, *bug) == over

    until(lambda: len(read(kafka, topics.output)) >= count - by_right)
    time.sleep(1)  # for what should not come
    out = ids(kafka, topics.output)
    assert len(out) == count - by_right
    assert set(out.values()) == {1}
    assert len(read(kafka, topics.dead)) == dead


def test_a_run_that_is_killed_at_any_moment_repeats_nothing(kafka, topics, figures):
    seed = random.randrange(10**6)
    moments = random.Random(seed)
    values = [(as_msgpack, as_json)[n % 2](n) for n in range(LETTERS)]
    produce(kafka.bootstrap, topics.dead, values, partitions=PARTITIONS)
    kills = 0
    while True:
        with started(kafka, *topics.road, "--rate", "2000") as run:
            try:
                last, _ = run.communicate(timeout=moments.uniform(0.8, 1.6) if kills < 3 else 60)
                break
            except subprocess.TimeoutExpired:
                run.kill()
        kills += 1
    figures(f"replay, {LETTERS} letters, seed {seed}: {kills} kills; then {last.strip()}")
    assert kills
    assert run.returncode == 0
    out = ids(kafka, topics.input)
    assert len(out) == LETTERS, f"seed {seed}"
    assert set(out.values()) == {1}, f"seed {seed}"


def test_of_two_runs_at_once_the_first_ends(kafka, topics):
    produce(kafka.bootstrap, topics.dead, map(as_json, range(300)), partitions=PARTITIONS)
    with started(kafka, *topics.road, "--rate", "50") as first:
        until(lambda: read(kafka, topics.input))
        first.send_signal(signal.SIGSTOP)
        second = summary(kafka, *topics.road)
        first.send_signal(signal.SIGCONT)
        out, error = first.communicate(timeout=60)
    assert error == (
        f"error: another replay with the ledger '{topics.ledger}' began, and goes on with what this"
        " one has not replayed\n"
    )
    assert first.returncode == 1
    assert int(out.split(", ")[1].split()[0]) + int(second.split(", ")[1].split()[0]) == 300
    found = ids(kafka, topics.input)
    assert len(found) == 300
    assert set(found.values()) == {1}


def test_only_what_is_committed_at_the_start_is_read(kafka, topics):
    def nested(number):  # put back into the letters' own topic it is a letter again at once
        return json.dumps(letter(number, record={"message": as_json(number).decode()})).encode()

    produce(kafka.bootstrap, topics.dead, map(nested, range(10)), partitions=1)
    # Fluentd writes letters in transactions: offsets have gaps, and one may be open for long.
    writer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topics.group})
    writer.init_transactions()
    for numbers, end in (
        (range(10, 15), writer.abort_transaction),
        (range(20, 25), writer.commit_transaction),
        (range(30, 35), None),
    ):
        writer.begin_transaction()
        for number in numbers:
            writer.produce(topics.dead, nested(number), partition=0)
        writer.flush()
        if end:
            end()
    back = ("--from-topic", topics.dead, "--to-topic", topics.dead)
    assert summary(kafka, *back).startswith("15 letters read, 15 replayed,")
    writer.commit_transaction()
    assert summary(kafka, *topics.road).startswith(
        "35 letters read, 20 replayed, 0 not selected, 15 replayed before"
    )
    cluster = Cluster(kafka.bootstrap)
    contents = Contents(cluster, cluster.topic(topics.dead))
    produce(kafka.bootstrap, topics.dead, map(as_json, range(30)), partitions=PARTITIONS)
    assert len(list(contents)) == 35


def test_a_topic_made_again_has_other_letters(kafka, topics):
    for _ in range(2):
        put(kafka, topics.dead, as_json(1))
        assert summary(kafka, *topics.road).startswith("1 letters read, 1 replayed,")
        kafka.delete_topics(topics.dead)
        kafka.create_topic(topics.dead, PARTITIONS)


def put(kafka, topic, *values):
    produce(kafka.bootstrap, topic, values, partitions=1)


def parts(messages):
    return [(message.topic(), message.key(), message.value()) for message in messages]


def test_a_message_is_as_it_was(kafka, topics):
    records = (
        {"message": b"\xff\x00", "key": "k", "more": 1},
        {"message": "text", "key": b"\xfe"},
        {"message": None, "key": "gone"},
        {"message": 1},
        {"id": 1, "nested": {"a": [1.5, None]}},
    )
    put(kafka, topics.dead, *(as_msgpack(1, record=one, tag=topics.input) for one in records))
    road = ("--from-topic", topics.dead, "--to-topic", "${tag}")
    done = replay(kafka, *road, "--key-field", "key", "--keep-time")
    assert done.returncode == 1
    assert done.stdout == (
        "5 letters read, 3 replayed, 0 not selected, 0 replayed before, 2 that cannot be sent\n"
    )
    odd, bare = done.stderr.splitlines()
    assert (
        odd == f"warning: {topics.dead} [0] offset 3: the message in 'message' is no text but a int"
    )
    assert "offset 4: its record has no field 'message'" in bare
    assert "'id', 'nested'" in bare
    assert "--as-json" in bare
    found = sorted(read(kafka, topics.input), key=lambda message: message.value() or b"")
    assert parts(found) == [
        (topics.input, b"gone", None),
        (topics.input, b"\xfe", b"text"),
        (topics.input, b"k", b"\xff\x00"),
    ]
    assert {message.timestamp()[1] for message in found} == {1_795_339_800_500}
    # Those that could not be sent are not written down; as JSON they can.
    assert summary(kafka, *road, "--as-json").startswith("5 letters read, 2 replayed, 0 not")
    json_found = {message.value() for message in read(kafka, topics.input)} - {
        message.value() for message in found
    }
    assert json_found == {b'{"message":1}', b'{"id":1,"nested":{"a":[1.5,null]}}'}


def test_from_a_topic_to_a_forward_server_and_from_a_file_to_a_topic(kafka, topics, tmp_path):
    put(kafka, topics.dead, *map(as_json, range(100)))
    taken = []

    def take(chunk):
        if len(taken) == 40:
            taken.append(None)
            raise RuntimeError("once")
        taken.extend(record["message"] for _, record in codec.decode_entries(chunk.entries))

    with Sink(take) as sink:
        to = ("--from-topic", topics.dead, "--to", f"127.0.0.1:{sink.port}")
        failed = replay(kafka, *to, "--rate", "100")
        assert failed.returncode == 1
        assert failed.stdout.startswith("50 letters read, 40 replayed")
        assert summary(kafka, *to).startswith("100 letters read, 60 replayed")
        # The ledger is one, wherever they go.
        assert summary(kafka, *topics.road).startswith("100 letters read, 0 replayed")
    assert sorted(filter(None, taken)) == sorted(json.dumps({"id": n}) for n in range(100))

    file = tmp_path / "dead.jsonl"
    file.write_bytes(b"".join(as_json(number) + b"\n" for number in range(100)))
    assert summary(kafka, str(file), "--to-topic", topics.input).startswith("100 letters read, 100")
    assert summary(kafka, str(file), "--to-topic", topics.input).startswith("100 letters read, 0")
    assert ids(kafka, topics.input) == Counter(range(100))


def test_mistakes(kafka, topics, tmp_path):
    """Those that take a Kafka to be seen; the others are in commands/test_mistakes.py."""
    file = tmp_path / "dead.jsonl"
    file.write_bytes(as_json(1, record={"message": "x" * 1000}))
    far = tmp_path / "far.jsonl"
    far.write_bytes(as_json(1) + b"\n" + as_json(2, time="9" * 400))
    small = f"{topics.group}-small"
    kafka.create_topic(small, PARTITIONS, max_message_bytes="100")
    put(kafka, topics.dead, as_msgpack(1, record={"message": "x" * 1000}))
    put(kafka, topics.output, b"junk", b'{"id": ', b"\x81", as_msgpack(1, tag="no-such")[:-9])
    written = ("--ledger", topics.group)
    cases = [
        (("--from-topic", topics.dead[:-1], "--dry-run"), 2, f"there is no topic '{topics.dead[:-1]}' at {kafka.bootstrap}; did you mean '{topics.dead}'?"),
        (("--from-topic", "x", "--dry-run"), 2, "there is no topic 'x' at"),
        (("--from-topic", topics.dead, "--to-topic", "x"), 2, "there is no topic 'x' at"),
        ((*topics.road, "--ledger", topics.output), 2, f"topic '{topics.output}' has cleanup.policy=delete: as a ledger it would forget"),
        ((*topics.road, "--ledger", "no/topic"), 2, "the ledger, topic 'no/topic', cannot be created"),
        (("--from-topic", topics.dead, "--to-topic", small, *written), 1, f"error: a transaction failed: ProduceRequest for {small} ["),
        ((str(file), "--to-topic", small), 1, f"topic '{small}' takes no more: Broker: Message size too large"),
        ((str(far), "--to-topic", small, "--keep-time"), 1, "letter 2: Kafka has no timestamp for its time: leave out --keep-time"),
        (("--from-topic", topics.dead, "--to-topic", "${tag}", *written), 1, "offset 0: there is no topic 'ad': create it"),
        (("--from-topic", topics.output, "--to-topic", topics.input), 1, "offset 0: no dead letter: it is neither JSON nor msgpack with fields"),
        (("--from-topic", topics.output, "--dry-run"), 1, "offset 1: no dead letter: it begins as JSON, but is none"),
        (("--from-topic", topics.output, "--dry-run"), 1, "offset 2: no dead letter: it begins as msgpack, but it ends in the middle"),
    ]  # fmt: skip
    wrong = []
    for arguments, code, message in cases:
        done = replay(kafka, *arguments)
        said = " ".join(done.stderr.split())
        if done.returncode != code or message not in said or "Traceback" in said:
            wrong.append((arguments, done.returncode, done.stdout, done.stderr))
    assert not wrong
    kafka.delete_topics(small)
