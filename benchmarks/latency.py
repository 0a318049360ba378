"""How long an event takes from its producer to a reader of committed messages, at a steady rate."""

from __future__ import annotations

import re
import statistics
import threading
import time
from dataclasses import dataclass

from confluent_kafka import Producer

from bridge.local.topics import TopicReader

RATE = 1_000
_PATIENCE = 180  # Spark starts in half a minute, on a machine that has nothing else to do
_SENT = re.compile(rb'"sent":(\d+)')


@dataclass
class Latency:
    """Milliseconds from before an event is produced until it has been read."""

    p50: float
    p99: float
    worst: float


class Silent(Exception):
    """Events did not come out."""


def latency(bootstrap: str, topics: tuple[str, str], *, warm: float, seconds: float) -> Latency:
    """Send events through a pipeline that runs, at 1,000 a second.

    Args:
        bootstrap: the brokers.
        topics: the pipeline's input and its output.
        warm: seconds after the first event that came out which are not counted.
        seconds: seconds that are counted.

    Raises:
        Silent: nothing came out for three minutes.
    """
    ended = threading.Event()
    sender = threading.Thread(target=_send, args=(bootstrap, topics[0], ended))
    sender.start()
    try:
        return _receive(bootstrap, topics[1], warm, seconds)
    finally:
        ended.set()
        sender.join()


def _send(bootstrap: str, topic: str, ended: threading.Event) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0, "log_level": 2})
    began, number = time.monotonic(), 0
    while not ended.is_set():
        producer.produce(
            topic,
            b'{"sent":%d,"id":%d,"url":"http://site%d.example/path"}'
            % (time.time_ns(), number, number % 100),
        )
        producer.poll(0)
        number += 1
        time.sleep(max(0.0, began + number / RATE - time.monotonic()))
    producer.flush(30)


def _receive(bootstrap: str, topic: str, warm: float, seconds: float) -> Latency:
    took: list[float] = []
    first = None
    last = time.monotonic()
    with TopicReader(bootstrap, [topic], at_once=100) as reader:
        while first is None or time.monotonic() < first + warm + seconds:
            messages = reader.read(0.002)
            now, moment = time.time_ns(), time.monotonic()
            if messages:
                last = moment
                first = first or moment
            elif moment > last + _PATIENCE:
                raise Silent(f"no event came out for {_PATIENCE} s")
            if first is not None and moment > first + warm:
                for message in messages:
                    sent = _SENT.search(message.value)
                    assert sent is not None
                    took.append((now - int(sent[1])) / 1e6)
    if len(took) < RATE * seconds / 2:
        raise Silent(f"only {len(took)} events came out in {seconds:g} s")
    cuts = statistics.quantiles(took, n=100)
    return Latency(cuts[49], cuts[98], max(took))
