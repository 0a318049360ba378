"""The complete configurations of fluent-conf, run by a real Fluentd between real topics."""

import json
import os
import re
import socket
import subprocess
import time
from pathlib import Path

import msgpack
import pytest
from confluent_kafka import Producer

from bridge.local.fluentd import PROGRAM, Fluentd, configuration, plugin
from bridge.local.topics import consume_until

CONFIGURATIONS = sorted(configuration().parent.glob("*.conf"))


def in_order(values):
    return sorted(values, key=repr)


@pytest.mark.fluentd
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"FORMAT": "text"},
        {"DEAD_LETTER_FORMAT": "json"},
        {"KAFKA_KEY_FIELD": "key", "OUTPUT_TOPIC": "filtered.${tag}", "INPUT_TOPICS": "/ad\\..*/"},
    ],
    ids=lambda settings: ",".join(settings) or "defaults",
)
@pytest.mark.parametrize("conf", CONFIGURATIONS, ids=lambda conf: conf.stem)
def test_dry_run_finds_nothing_to_say(conf, settings, tmp_path):
    if why := Fluentd.missing():
        pytest.skip(why)
    done = subprocess.run(
        [PROGRAM, *plugin(), "--dry-run", "--config", str(conf)],
        env={**os.environ, "BUFFER_DIR": str(tmp_path), **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    # An unknown parameter is a warning: "parameter 'x' in <source> is not used."
    assert "[warn]" not in done.stdout
    assert "finished dry run mode" in done.stdout


def test_every_setting_has_a_default_and_is_documented():
    for conf in CONFIGURATIONS:
        text = conf.read_text()
        head, _, body = text.partition("\n\n<" if "\n\n<system>" in text else "\n\n@include")
        for name in {part.split("'")[0] for part in body.split("ENV['")[1:]}:
            assert re.search(rf"^#   (\w+, )?{name}[ ,]", head, re.MULTILINE), (
                f"{conf.name}: {name}"
            )


def test_every_event_comes_out_once(pipeline, figures):
    flow = pipeline(replicas=2)
    flow.produce_ids(range(5_000))
    began = time.monotonic()
    flow.start()
    ids = flow.ids(5_000)
    took = time.monotonic() - began
    figures(f"5000 events through two Fluentds in {took:.1f} s, their start included")
    assert ids == dict.fromkeys(range(5_000), 1)


def test_throughput_of_one_fluentd(pipeline, figures):
    flow = pipeline()
    flow.start()
    flow.produce_ids(range(1_000))
    flow.ids(1_000, settle=0)
    began = time.monotonic()
    flow.produce_ids(range(1_000, 61_000))
    ids = flow.ids(61_000, settle=0)
    took = time.monotonic() - began
    figures(f"60000 events in and out of one Fluentd: {60_000 / took:,.0f} events/s")
    assert ids == dict.fromkeys(range(61_000), 1)


def test_text_passes_every_byte(pipeline):
    payloads = [
        b'{"id": 1}',
        b"no JSON at all",
        b"not UTF-8: \xff\xfe\x80",
        b'{"number": 123456789012345678901234567890, "nan": NaN}',
        b"two\nlines\n",
        b"\x00\x01\x02",
        "žluťoučký kůň 🐎".encode(),
        b"x" * 600_000,
    ]
    flow = pipeline(FORMAT="text", OUTPUT_CHUNK_LIMIT="900k")
    flow.produce(payloads)
    flow.start()
    messages = consume_until(
        flow.kafka.bootstrap, [flow.output], lambda found: len(found) >= len(payloads)
    )
    assert in_order(message.value for message in messages) == in_order(payloads)


def test_dead_letters_keep_what_json_cannot_hold(pipeline):
    flow = pipeline()
    flow.start()
    record = {"tag": "ad", "record": {"name": "\udcff", "nan": float("inf"), "raw": b"\xff"}}
    packed = msgpack.packb(record, unicode_errors="surrogateescape")
    entry = b"\x92" + msgpack.packb(int(time.time())) + packed
    with socket.create_connection(("127.0.0.1", flow.fluentds[0].return_port)) as connection:
        connection.sendall(msgpack.packb(["error.ad", entry, {"size": 1, "chunk": "one"}]))
        assert msgpack.unpackb(connection.recv(512)) == {"ack": "one"}
    [message] = consume_until(flow.kafka.bootstrap, [flow.dead_letters], bool)
    letter = msgpack.unpackb(message.value, unicode_errors="surrogateescape")
    assert letter["record"] == record["record"]


def test_a_field_that_kafka2_knows_is_data_like_any_other(pipeline):
    fields = ['"partition": "x"', '"topic": "x"', '"message_key": 5', '"partition_key": 5']
    flow = pipeline()
    flow.produce(
        b'{"id": %d, %s}' % (number, field.encode()) for number, field in enumerate(fields)
    )
    flow.start()
    assert flow.ids(len(fields), timeout=30) == dict.fromkeys(range(len(fields)), 1)


def test_the_key_goes_through_with_the_event(pipeline):
    flow = pipeline(KAFKA_KEY_FIELD="key")
    producer = Producer({"bootstrap.servers": flow.kafka.bootstrap})
    for number in range(20):
        producer.produce(flow.input, b'{"id": %d}' % number, key=f"k{number % 3}")
    producer.flush(10)
    flow.start()
    messages = consume_until(flow.kafka.bootstrap, [flow.output], lambda found: len(found) >= 20)
    records = [(message.key, json.loads(message.value)) for message in messages]
    assert sorted(records, key=lambda pair: pair[1]["id"]) == [
        (b"k%d" % (number % 3), {"id": number}) for number in range(20)
    ]
    for key in {message.key for message in messages}:
        assert len({message.partition for message in messages if message.key == key}) == 1


def test_a_sidecar_that_comes_back_is_used_within_seconds(pipeline, figures):
    flow = pipeline()
    flow.start()
    flow.produce_ids(range(1_000))
    flow.ids(1_000, settle=0)
    flow.relays[0].stop()
    flow.produce_ids(range(1_000, 2_000))
    time.sleep(8)
    flow.relays[0].start()
    back = time.monotonic()
    ids = flow.ids(2_000, settle=0)
    took = time.monotonic() - back
    figures(f"first delivery {took:.1f} s after the sidecar came back")
    assert set(ids) == set(range(2_000))
    assert took < 8


def test_a_restart_in_order_loses_and_repeats_nothing(pipeline):
    flow = pipeline()
    flow.produce_ids(range(20_000))
    flow.start()
    flow.ids(500, settle=0)
    assert flow.fluentds[0].stop() == 0
    flow.fluentds[0].start()
    assert flow.ids(20_000) == dict.fromkeys(range(20_000), 1)


def test_chunks_in_the_file_buffer_survive_a_kill(pipeline):
    flow = pipeline()
    flow.fluentds[0].start()  # and no relay: what it reads from Kafka stays in its buffer
    flow.produce_ids(range(2_000))
    buffer = Path(flow.fluentds[0].folder) / "buffers/worker0/to_sidecar/buffer"
    deadline = time.monotonic() + 30
    while sum(file.stat().st_size for file in buffer.glob("*.log")) < 2_000 * 50:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    flow.fluentds[0].kill()
    flow.relays[0].start()
    flow.fluentds[0].start()
    assert set(flow.ids(2_000)) == set(range(2_000))
