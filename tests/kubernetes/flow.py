"""Events with ids that flow through the pods while something happens to them."""

import threading
import time
from contextlib import contextmanager

from ids import Tally, event

from bridge.local.topics import TopicReader, paced, produce

SETTLE = 3  # seconds without a new message after the last one awaited
# Seconds without a new message after which no more is awaited: longer than a session and a transaction last.
PATIENCE = 150
AFTERWARDS = 8_000  # events a second


class Flow:
    """Produces ranges of ids, and counts what comes out.

    Args:
        topics: where to produce, and where to read.
        partitions: of the topic to produce to.
        total: ids are below this.
    """

    def __init__(self, topics, partitions, total):
        self.tally = Tally(topics, total)
        self.last_result = b""
        self._topics = topics
        self._partitions = partitions
        self._reader = TopicReader(topics.kafka.bootstrap, [topics.output, topics.dead])

    def close(self):
        self._reader.close()

    @contextmanager
    def events(self, numbers, seconds, make=event):
        """Produce events, and return when all of them have come out, or when no more do.

        The block begins once the first have come out. A fifth of them is produced when it has ended, the others in
        so many seconds.

        Args:
            numbers: the ids, a range.
            seconds: how long what happens in the block may last.
            make: returns the event of an id.
        """
        over = threading.Event()
        failures = []
        thread = threading.Thread(
            target=self._produce, args=(numbers, seconds, make, over, failures)
        )
        before = self.tally.found
        thread.start()
        try:
            self._read_until(lambda: self.tally.found > before)
            yield
        finally:
            over.set()
            thread.join()
        assert not failures, failures
        self._read_until(
            lambda: (
                self.tally.found == before + len(numbers)
                and time.monotonic() > self.tally.last + SETTLE
            )
        )

    def _produce(self, numbers, seconds, make, over, failures):
        early = len(numbers) * 4 // 5
        rate = early / seconds

        def values():
            yield from paced(map(make, numbers[:early]), rate)
            over.wait()
            yield from paced(map(make, numbers[early:]), AFTERWARDS)

        topics = self._topics
        try:
            produce(topics.kafka.bootstrap, topics.input, values(), partitions=self._partitions)
        except BaseException as error:
            failures.append(error)

    def _read_until(self, condition):
        self.tally.last = time.monotonic()
        while not condition() and time.monotonic() < self.tally.last + PATIENCE:
            messages = self._reader.read(0.2)
            self.tally.take(messages)
            results = [one.value for one in messages if one.topic == self._topics.output]
            self.last_result = results[-1] if results else self.last_result
