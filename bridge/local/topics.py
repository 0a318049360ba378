"""Writing and reading whole topics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition

from bridge.errors import BridgeError

_ANY_PARTITION = -1  # RD_KAFKA_PARTITION_UA: librdkafka chooses
_READ_AT_ONCE = 5_000
_CALL_PROGRESS_EVERY = 1_000
_PACE_EVERY = 50


class Message(NamedTuple):
    """A message as it stands in a topic."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes


class TopicError(BridgeError):
    """A topic did not hold in time what was waited for."""


def produce(
    bootstrap: str,
    topic: str,
    values: Iterable[bytes],
    *,
    partitions: int | None = None,
    progress: Callable[[int], object] | None = None,
    timeout: float = 60.0,
) -> int:
    """Write messages and wait until the broker has them all.

    Args:
        bootstrap: the brokers, ``host:port,...``.
        topic: where to.
        values: one a message; read no faster than they are sent.
        partitions: deal the messages out to that many partitions in turn; by default librdkafka
            chooses, batch by batch.
        progress: called with the number of messages delivered so far.
        timeout: seconds that the last of them may take.

    Returns:
        The number of messages.

    Raises:
        TopicError: some were not delivered in time.
        confluent_kafka.KafkaException: the broker refused one.
    """
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "linger.ms": 20,
            "log_level": 2,  # a broker that is still loading, or away again, is no error
        }
    )
    delivered = 0
    refusals: list[Any] = []

    def on_delivery(error: Any, _message: Any) -> None:
        nonlocal delivered
        if error is not None:
            refusals.append(error)
            return
        delivered += 1
        if progress is not None and delivered % _CALL_PROGRESS_EVERY == 0:
            progress(delivered)

    offered = 0
    for value in values:
        partition = _ANY_PARTITION if partitions is None else offered % partitions
        while True:
            try:
                producer.produce(topic, value, partition=partition, on_delivery=on_delivery)
                break
            except BufferError:  # its queue is full
                producer.poll(0.1)
        offered += 1
        producer.poll(0)
    missing = producer.flush(timeout)
    if refusals:
        raise KafkaException(refusals[0])
    if missing:
        raise TopicError(
            f"{missing} of {offered} messages for {topic!r} were not delivered "
            f"within {timeout:g} s; is the broker at {bootstrap} there?"
        )
    if progress is not None:
        progress(delivered)
    return delivered


def paced(values: Iterable[bytes], rate: float) -> Iterator[bytes]:
    """Hand on values at so many a second, those that are late at once."""
    began = time.monotonic()
    for number, value in enumerate(values):
        if number % _PACE_EVERY == 0:
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
        yield value


class TopicReader:
    """Reads all partitions of topics from their beginning, without a consumer group.

    Args:
        bootstrap: the brokers, ``host:port,...``.
        topics: topics that exist.
        at_once: most messages that one reading returns; it returns early with so many only.

    Raises:
        TopicError: one of them does not exist.
    """

    def __init__(
        self, bootstrap: str, topics: Sequence[str], *, at_once: int = _READ_AT_ONCE
    ) -> None:
        self._at_once = at_once
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "fluent-bridge-reader",  # required, though no group is joined
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
                "isolation.level": "read_committed",  # so it is by default; tests rely on it
                "log_level": 2,  # a broker that is away is awaited
            }
        )
        places = []
        for topic in topics:
            metadata = self._consumer.list_topics(topic, timeout=10).topics[topic]
            if metadata.error is not None:
                self._consumer.close()
                raise TopicError(f"there is no topic {topic!r} at {bootstrap}: {metadata.error}")
            places += [
                TopicPartition(topic, partition, OFFSET_BEGINNING)
                for partition in metadata.partitions
            ]
        self._consumer.assign(places)

    def read(self, timeout: float = 0.5) -> list[Message]:
        """Return the next messages, none where none came in time.

        Args:
            timeout: seconds to wait for more.

        Raises:
            confluent_kafka.KafkaException: a partition cannot be read. A broker that is away is
                no such thing: it is awaited.
        """
        messages = []
        for message in self._consumer.consume(self._at_once, timeout):
            error = message.error()
            if error is not None:
                if error.retriable():
                    continue
                raise KafkaException(error)
            # Only an event that reports an error lacks these.
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            assert topic is not None
            assert partition is not None
            assert offset is not None
            value = message.value() or b""
            messages.append(Message(topic, partition, offset, message.key(), value))
        return messages

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()


def consume_until(
    bootstrap: str,
    topics: Sequence[str],
    done: Callable[[list[Message]], bool],
    *,
    timeout: float = 60.0,
    progress: Callable[[int], object] | None = None,
) -> list[Message]:
    """Read topics from their beginning until they hold what is waited for.

    Args:
        bootstrap: the brokers, ``host:port,...``.
        topics: topics that exist.
        done: asked after each reading, with all messages so far, whether that is it.
        timeout: seconds that it may take.
        progress: called with the number of messages so far.

    Returns:
        All messages, in the order of their partitions.

    Raises:
        TopicError: it took too long; the message says how much came.
    """
    deadline = time.monotonic() + timeout
    messages: list[Message] = []
    with TopicReader(bootstrap, topics) as reader:
        while True:
            messages += reader.read()
            if progress is not None:
                progress(len(messages))
            if done(messages):
                return messages
            if time.monotonic() > deadline:
                raise TopicError(
                    f"after {timeout:g} s there are {len(messages)} messages in "
                    f"{', '.join(topics)}, and not yet what was waited for"
                )
