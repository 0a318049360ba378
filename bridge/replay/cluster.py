"""A Kafka cluster: how to reach it, its topics, and all that stands in one of them now."""

from __future__ import annotations

import difflib
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from bridge.errors import BridgeError, SettingsError

# What is wrong comes as an exception: librdkafka would write the same to stderr, in its own way.
_log = logging.getLogger(__name__)
_log.addHandler(logging.NullHandler())
_log.propagate = False

_TIMEOUT = 10.0  # seconds for an answer
_AT_ONCE = 1_000  # messages
_WAIT = 0.05  # seconds until fewer are taken; librdkafka waits them out, whatever came

# What this package relies on. The names are librdkafka's, CONFIGURATION.md.
_FIXED = {
    "isolation.level": "read_committed",
    "enable.auto.commit": "false",
    "enable.idempotence": "true",
}

_NO_TOPIC = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_EXCEPTION)  # or no name of one

PRODUCER = {
    "message_max_bytes": 100 << 20,  # what is too large is for the brokers to say
    # That of Kafka's own producer: what has a key comes to the partition that it was in.
    "partitioner": "murmur2_random",
    "linger_ms": 20,
}
"""Options for what writes, as :meth:`Cluster.options` takes them."""


class ReplayError(BridgeError):
    """A replay cannot go on; says why, and what to do."""


class Topic(NamedTuple):
    """A topic as it is there now.

    Attributes:
        name: its name.
        id: tells it from one of the same name that was deleted before it was made.
        partitions: their numbers.
    """

    name: str
    id: str
    partitions: list[int]


def options_of(file: Path) -> dict[str, str]:
    """Return what a file with librdkafka's options says, a line ``name=value`` each.

    Raises:
        SettingsError: it cannot be read, or sets what must stay as it is.
    """
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(
            f"{file} cannot be read: {reason}; give --kafka-config a text file of lines name=value"
        ) from None
    options: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, equals, value = (part.strip() for part in line.partition("="))
        if not name or name.startswith("#"):
            continue
        if not equals:
            raise SettingsError(f"{file}:{number}: {name!r}: write name=value")
        if name == "transactional.id" or _FIXED.get(name, value) != value:
            raise SettingsError(
                f"{file}:{number}: leave {name} out: that each letter goes once rests on it"
            )
        options[name] = value
    return options


class Cluster:
    """A Kafka cluster.

    Args:
        brokers: ``host:port,...``.
        options: more of librdkafka's, as :func:`options_of` returns them.

    Raises:
        SettingsError: an option is none.
        ReplayError: no broker answers.
    """

    def __init__(self, brokers: str, options: Mapping[str, str] | None = None) -> None:
        self.brokers = brokers
        self._options: dict[str, Any] = {
            "bootstrap.servers": brokers,
            "logger": _log,
            **(options or {}),
        }
        self._errors: list[KafkaError] = []
        try:
            self.admin = AdminClient(self.options() | {"error_cb": self._errors.append})
        except KafkaException as error:
            raise SettingsError(
                f"Kafka's client refuses an option: {error.args[0].str()}; correct it in the file"
                " that --kafka-config names, or in --brokers"
            ) from None
        self.names = self._connect()

    def options(self, **more: Any) -> dict[str, Any]:
        """Return options for a client.

        Args:
            more: what it has beside the cluster's, ``_`` for ``.``.
        """
        dotted = {name.replace("_", "."): value for name, value in more.items()}
        return {**self._options, **dotted}

    def find(self, name: str) -> Topic | None:
        """Return a topic, None where there is none. It is not created, whatever brokers do.

        Raises:
            ReplayError: the brokers do not tell.
        """
        try:
            described = self.admin.describe_topics(
                TopicCollection([name]), request_timeout=_TIMEOUT
            )[name].result()
        except KafkaException as error:
            if error.args[0].code() in _NO_TOPIC:
                return None
            raise ReplayError(f"topic {name!r} at {self.brokers}: {error.args[0].str()}") from None
        numbers = sorted(partition.id for partition in described.partitions)
        return Topic(name, str(described.topic_id), numbers)

    def topic(self, name: str) -> Topic:
        """Return a topic.

        Raises:
            SettingsError: there is none.
            ReplayError: the brokers do not tell.
        """
        if found := self.find(name):
            return found
        close = difflib.get_close_matches(name, self.names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "create it, or name another."
        raise SettingsError(f"there is no topic {name!r} at {self.brokers}; {hint}")

    def _connect(self) -> list[str]:
        """Return the names of all topics."""
        deadline = time.monotonic() + _TIMEOUT
        while True:
            try:
                return list(self.admin.list_topics(timeout=0.5).topics)
            except KafkaException as error:
                self.admin.poll(0)  # takes what became of each connection
                away = any(each.code() == KafkaError._ALL_BROKERS_DOWN for each in self._errors)  # noqa: SLF001 - so they are named
                if away or time.monotonic() > deadline:
                    reasons = dict.fromkeys(each.str() for each in self._errors[:3])
                    raise ReplayError(
                        f"no Kafka broker answers at {self.brokers}:"
                        f" {'; '.join(reasons) or error.args[0].str()}. Give --brokers, and what"
                        " else it takes (TLS, SASL) with --kafka-config"
                    ) from None


class Contents:
    """What stands in a topic now, committed, a partition after the other as it is fetched.

    Only up to the ends that partitions have when this is made: what comes later is for later, or
    letters that fail again would be read for ever.

    Args:
        cluster: the cluster.
        topic: the topic.

    Attributes:
        total: how many offsets it is, somewhat more than there are messages.

    Raises:
        ReplayError: its partitions cannot be read.
    """

    def __init__(self, cluster: Cluster, topic: Topic) -> None:
        self._topic = topic
        self._consumer = Consumer(
            cluster.options(
                group_id="fluent-bridge-replay",  # required, though no group is joined
                enable_auto_commit=False,
                isolation_level="read_committed",
                enable_partition_eof=True,
                fetch_wait_max_ms=50,
            )
        )
        self._ends: dict[int, int] = {}
        self.total = 0
        try:
            for number in topic.partitions:
                place = TopicPartition(topic.name, number)
                # With read_committed the end is where the first open transaction begins.
                begin, end = self._consumer.get_watermark_offsets(place, _TIMEOUT) or (0, 0)
                if end > begin:
                    self._ends[number] = end
                    self.total += end - begin
        except KafkaException as error:
            self._consumer.close()
            raise self._failed(error.args[0]) from None

    def __iter__(self) -> Iterator[tuple[int, int, bytes | None, bytes | None]]:
        """Yield partition, offset, key and value of each message.

        Raises:
            ReplayError: they cannot be read.
        """
        open_ends = dict(self._ends)
        name = self._topic.name
        try:
            self._consumer.assign([TopicPartition(name, n, OFFSET_BEGINNING) for n in open_ends])
            while open_ends:
                for message in self._consumer.consume(_AT_ONCE, _WAIT):
                    number, offset = message.partition(), message.offset()
                    assert number is not None
                    error = message.error()
                    if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001
                        if error.retriable():
                            continue
                        raise self._failed(error)
                    if number not in open_ends:
                        continue
                    assert offset is not None
                    if error is None and offset < open_ends[number]:
                        yield number, offset, message.key(), message.value()
                    if error is not None or offset >= open_ends[number] - 1:
                        del open_ends[number]
                        self._consumer.pause([TopicPartition(name, number)])
        finally:
            self._consumer.close()

    def _failed(self, error: KafkaError) -> ReplayError:
        return ReplayError(f"topic {self._topic.name!r} cannot be read: {error.str()}")
