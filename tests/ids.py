"""What end-to-end tests count: topics of their own, events with ids, and which of them came out."""

import re
import time

from confluent_kafka import Consumer, TopicPartition

from bridge.local.topics import TopicReader

SHOWN = 20

ENRICH = """
import bridge

@bridge.filter("**")
def enrich(record: dict) -> dict:
    if record["id"] % 500 == 13:
        raise bridge.Reject("unlucky")
    record["site"] = record["url"].split("/", 3)[2]
    return record
"""


def event(number):
    return (
        b'{"id":%d,"url":"http://site%d.example/path/%d","ua":"Mozilla/5.0 (X11)","price":%d.5}'
        % (number, number % 100, number, number % 90)
    )


def is_rejected(number):
    return number % 500 == 13


class Topics:
    """The topics of a test, and the group that reads them."""

    def __init__(self, kafka, name, partitions):
        self.kafka = kafka
        self.group = name
        self.names = self.input, self.output, self.dead = (
            f"{name}-in",
            f"{name}-out",
            f"{name}-dead",
        )
        for topic in self.names:
            kafka.create_topic(topic, partitions)

    def delete(self):
        self.kafka.delete_topics(*self.names)


# An id stands where the event has it, in a dead letter too, which holds the event as it came.
_ID = re.compile(rb'\{"id":(\d+)')


class Tally:
    """How often each id came out, a byte an id."""

    def __init__(self, topics, count):
        self._topics = topics
        self.counts = bytearray(count)
        self.found = 0
        self.dead = 0
        self.misplaced = []
        self.last = time.monotonic()

    def take(self, messages):
        for message in messages:
            number = self._check(message)
            count = self.counts[number]
            self.found += not count
            self.counts[number] = min(count + 1, 255)
        if messages:
            self.last = time.monotonic()

    def _check(self, message):
        number = int(_ID.search(message.value)[1])
        dead = message.topic == self._topics.dead
        self.dead += dead
        filtered = dead or b'"site":"site%d.example"' % (number % 100) in message.value
        if dead != is_rejected(number) or not filtered:
            self.misplaced.append((number, message.topic, message.partition, message.offset))
        return number

    def missing(self):
        return [number for number, count in enumerate(self.counts) if not count]

    def twice(self):
        return [number for number, count in enumerate(self.counts) if count > 1]

    def duplicates(self):
        return sum(count - 1 for count in self.counts if count > 1)

    def where(self, numbers):
        """Read all topics once more → a line for each place of the first of these ids."""
        wanted = {b"%d" % number for number in numbers[:SHOWN]}
        lines = []
        with TopicReader(self._topics.kafka.bootstrap, self._topics.names) as reader:
            last = time.monotonic()
            while time.monotonic() < last + 2:
                for message in reader.read(0.2):
                    last = time.monotonic()
                    if (number := _ID.search(message.value)[1]) in wanted:
                        lines.append(
                            (int(number), message.topic, message.partition, message.offset)
                        )
        places = (
            f"  id {number}: {topic} [{partition}] offset {offset}"
            for number, topic, partition, offset in sorted(lines)
        )
        return "\n".join([*places, *map(self._ends, self._topics.names)])

    def _ends(self, topic):
        """Return where a topic's partitions end, and up to where an open transaction lets them be read."""
        ends = []
        for level in ("read_committed", "read_uncommitted"):
            consumer = Consumer(
                {
                    "bootstrap.servers": self._topics.kafka.bootstrap,
                    "group.id": "fluent-bridge-ends",
                    "isolation.level": level,
                }
            )
            partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
            ends.append(
                [
                    consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)[1]
                    for number in partitions
                ]
            )
            consumer.close()
        return f"  {topic}: partitions are readable up to {ends[0]}, end at {ends[1]}"
