"""Where replayed events go: a topic of Kafka, or a Forward server."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from confluent_kafka import KafkaError, Message, Producer

from bridge.decoding import encode_odd, raw_of_time
from bridge.errors import BridgeError
from bridge.forward import Client
from bridge.replay.cluster import PRODUCER, Cluster, ReplayError
from bridge.replay.letters import Letter

_TIMEOUT = 60.0  # seconds


class NotSendable(BridgeError):
    """A letter's event cannot go to this target; says why."""


class Packed(NamedTuple):
    """An event ready to be sent.

    Attributes:
        address: the topic or the tag.
        value: the message's value, None of a tombstone; or the packed entry.
        key: the message's key.
        timestamp: the message's, milliseconds since 1970; 0 for the time at which it is sent.
    """

    address: str
    value: bytes | None
    key: bytes | None = None
    timestamp: int = 0


class Target(Protocol):
    """Where events go."""

    def pack(self, letter: Letter) -> Packed:
        """Return a letter's event, ready to be sent.

        Raises:
            NotSendable: it cannot be.
        """

    def send(self, events: Sequence[Packed], producer: Producer | None) -> None:
        """Return when all of them are delivered.

        Args:
            events: they.
            producer: one with a transaction open: a topic's are written into that, and delivered
                when it is committed.

        Raises:
            ReplayError, DeliveryError, ProtocolError: they are not, or perhaps not.
        """

    def close(self) -> None:
        """Disconnect."""


class Nowhere:
    """The target of a run that only looks."""

    def pack(self, letter: Letter) -> Packed:
        """Return nothing."""
        return Packed(letter.tag, b"")

    def send(self, events: Sequence[Packed], producer: Producer | None) -> None:
        """Refuse."""
        raise NotImplementedError

    def close(self) -> None:
        """Do nothing."""


class TopicTarget:
    """A Kafka topic: what goes there is the message that the event was read from.

    Args:
        cluster: the topic's cluster.
        topic: its name; ``${tag}`` in it stands for the event's tag.
        field: the field of the record with the message's value; None for the whole record as JSON.
        key_field: the field with the message's key, None for messages without.
        keep_time: whether messages have the events' times.

    Raises:
        SettingsError: there is no such topic.
    """

    def __init__(
        self,
        cluster: Cluster,
        topic: str,
        *,
        field: str | None = "message",
        key_field: str | None = None,
        keep_time: bool = False,
    ) -> None:
        self._cluster = cluster
        self._topic = topic
        self._field = field
        self._key_field = key_field
        self._keep_time = keep_time
        self._refused: KafkaError | None = None
        self._known: dict[str, bool] = {}
        if "${tag}" not in topic:
            self._known[cluster.topic(topic).name] = True
        self._own: Producer | None = None

    def pack(self, letter: Letter) -> Packed:
        """Return the message that the event was read from."""
        topic = self._topic.replace("${tag}", letter.tag)
        if topic not in self._known:
            self._known[topic] = self._cluster.find(topic) is not None
        if not self._known[topic]:
            raise NotSendable(f"there is no topic {topic!r}: create it, or leave such letters out")
        key = letter.record.get(self._key_field) if self._key_field is not None else None
        return Packed(
            topic,
            self._value(letter.record),
            None if key is None else _bytes(key, f"the key in {self._key_field!r}"),
            _timestamp(letter) if self._keep_time else 0,
        )

    def send(self, events: Sequence[Packed], producer: Producer | None) -> None:
        """Produce them and, outside a transaction, wait until the brokers have them."""
        if producer is not None:
            # No delivery reports: a commit raises what went wrong with a message.
            for event in events:
                self._produce(producer, event)
            return
        if self._own is None:
            self._own = Producer(self._cluster.options(enable_idempotence=True, **PRODUCER))
        for event in events:
            self._produce(self._own, event, self._delivered)
        left = self._own.flush(_TIMEOUT)
        if self._refused is not None:
            raise ReplayError(
                f"topic {self._topic!r} takes no more: {self._refused.str()}. When that is mended,"
                " run it again: what went before stays out"
            )
        if left:
            raise ReplayError(
                f"topic {self._topic!r} did not take {left} messages in {_TIMEOUT:g} s: is a"
                " broker away?"
            )

    def close(self) -> None:
        """Do nothing: what was sent is delivered."""

    def _produce(
        self,
        producer: Producer,
        event: Packed,
        delivered: Callable[[KafkaError | None, Message], None] | None = None,
    ) -> None:
        while True:
            try:
                producer.produce(
                    event.address,
                    event.value,
                    event.key,
                    timestamp=event.timestamp,
                    on_delivery=delivered,
                )
            except BufferError:  # its queue is full
                producer.poll(0.1)
            else:
                return

    def _value(self, record: dict[Any, Any]) -> bytes | None:
        if self._field is None:
            try:
                return json.dumps(
                    record, ensure_ascii=False, allow_nan=False, separators=(",", ":")
                ).encode()
            except (TypeError, ValueError, RecursionError) as error:
                raise NotSendable(f"its record cannot be JSON: {error}") from None
        if self._field not in record:
            fields = ", ".join(map(repr, itertools.islice(record, 5))) or "none"
            raise NotSendable(
                f"its record has no field {self._field!r} with the message as it was read, it has"
                f" {fields}: name another with --field, or send the record itself with --as-json"
            )
        value = record[self._field]
        return None if value is None else _bytes(value, f"the message in {self._field!r}")

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        self._refused = self._refused or error


class ForwardTarget:
    """A Forward server, a sidecar or Fluentd: it gets the event under its tag, with its time.

    Args:
        client: a client that asks for acknowledgements.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def pack(self, letter: Letter) -> Packed:
        """Return the event as a packed entry."""
        try:
            letter.tag.encode()
            entry = b"\x92" + bytes(raw_of_time(letter.time)) + encode_odd(letter.record)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise NotSendable(f"its event cannot be packed: {error}") from None
        return Packed(letter.tag, entry)

    def send(self, events: Sequence[Packed], producer: Producer | None) -> None:  # noqa: ARG002
        """Send them, a chunk a tag, and wait for the acknowledgements."""
        chunks: dict[str, list[bytes]] = {}
        for event in events:
            chunks.setdefault(event.address, []).append(event.value or b"")
        for tag, entries in chunks.items():
            self._client.send_packed(tag, b"".join(entries), len(entries))
        self._client.flush()

    def close(self) -> None:
        """Disconnect."""
        self._client.close()


def _timestamp(letter: Letter) -> int:
    try:
        milliseconds = round(float(letter.time) * 1000)
    except OverflowError:
        milliseconds = -1
    if not 0 <= milliseconds < 1 << 63:
        raise NotSendable("Kafka has no timestamp for its time: leave out --keep-time")
    return milliseconds


def _bytes(value: Any, what: str) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        # What was not UTF-8 has surrogate escapes: bridge.decoding.decode_odd.
        return value.encode("utf-8", "surrogateescape")
    raise NotSendable(f"{what} is no text but a {type(value).__name__}")
