"""What stands for Fluentd where there is none: this project's Forward client and server."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import msgspec
from confluent_kafka import Consumer, Producer

from bridge.errors import DeliveryError
from bridge.forward import Chunk, Client, codec
from bridge.local.sink import Sink

_MESSAGES = 2_000


class StandIn:
    """Both ends of a road: a consumer group into the sidecar, and its results into topics.

    Offsets are committed after the sidecar has acknowledged, and results acknowledged after the
    broker has them.

    Args:
        bootstrap: the brokers.
        topics: the topics' names: ``in``, ``out`` and ``dead``.
        sidecar_port: where the sidecar listens.
        port: where the sidecar delivers.
    """

    real = False

    def __init__(
        self, bootstrap: str, topics: Mapping[str, str], *, sidecar_port: int, port: int
    ) -> None:
        self._bootstrap = bootstrap
        self._topics = topics
        self._sidecar_port = sidecar_port
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "log_level": 2})
        self._sink = Sink(self._take, port=port)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, name="consumer", daemon=True)

    def start(self) -> None:
        """Start both ends."""
        self._sink.__enter__()
        self._thread.start()

    def stop(self) -> None:
        """End both ends."""
        self._ended.set()
        self._thread.join()
        self._sink.__exit__()

    def _read(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": "fluent-bridge-demo",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
                "log_level": 2,
            }
        )
        consumer.subscribe([self._topics["in"]])
        try:
            with Client("127.0.0.1", self._sidecar_port, window=4) as client:
                while not self._ended.is_set():
                    self._hand_on(consumer, client)
        finally:
            consumer.close()

    def _hand_on(self, consumer: Consumer, client: Client) -> None:
        messages = [one for one in consumer.consume(_MESSAGES, timeout=0.2) if not one.error()]
        if not messages:
            return
        events: list[tuple[Any, Any]] = [
            ((message.timestamp()[1] or 0) // 1000, msgspec.json.decode(message.value() or b"null"))
            for message in messages
        ]
        client.send(self._topics["in"], events)
        client.flush()
        consumer.commit(asynchronous=False)

    def _take(self, chunk: Chunk) -> None:
        dead = chunk.tag.startswith("error.")
        for _, record in codec.decode_entries(chunk.entries):
            self._producer.produce(
                self._topics["dead" if dead else "out"], msgspec.json.encode(record)
            )
            self._producer.poll(0)
        if self._producer.flush(30):
            raise DeliveryError("the broker did not take the results within 30 s")
