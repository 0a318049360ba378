"""The ledger of a topic of letters: a topic too, written in the transactions that it tells of.

Why not the offsets of a consumer group, which a transaction can commit too? They say "up to here",
and a run with conditions leaves gaps. Gaps could stand in an offset's metadata, but a broker takes
4 KiB of that (``offset.metadata.max.bytes``), and forgets a group that nobody is in after a week
(``offsets.retention.minutes``): then all letters would go again.

Here each transaction adds an entry for each partition of which it replayed letters. Its key is that
topic, its id, the partition and the first offset; no two entries have the same, so the topic may be
and is compacted, and keeps them for ever. The id is there because a topic that is deleted and made
again begins again at offset 0, with other letters.

The transactional id is the ledger's. Whoever begins ends the transaction of whoever was killed, and
fences whoever is still running, before the ledger is read: so what is read is all there is, and
two runs at once cannot both replay a letter.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import ConfigResource  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic

from bridge.errors import SettingsError
from bridge.events import EventTime
from bridge.replay.cluster import PRODUCER, Cluster, Contents, ReplayError, Topic
from bridge.replay.ledger import Ranges, ranges
from bridge.replay.letters import Place

_TIMEOUT = 30.0  # seconds
_TRANSACTION_TIMEOUT = 60.0  # seconds; a batch is read before its transaction begins
_FENCED = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)  # noqa: SLF001


class TopicLedger:
    """The record of what was replayed of a topic, in another.

    Args:
        cluster: the cluster of both.
        letters: the topic of letters.
        name: the ledger's name; it is created if it is not there.
        read_only: whether nothing will be written; then it need not be there.

    Raises:
        SettingsError: the topic of that name is none that keeps a ledger.
        ReplayError: it cannot be read, or no transactions can be had.
    """

    def __init__(
        self, cluster: Cluster, letters: Topic, name: str, *, read_only: bool = False
    ) -> None:
        self._letters = letters
        self._name = name
        self._replayed: defaultdict[int, Ranges] = defaultdict(Ranges)
        self._producer: Producer | None = None
        topic = cluster.find(name)
        if topic is None:
            if read_only:
                return
            topic = _create(cluster, name)
        else:
            _require_compaction(cluster, name)
        if not read_only:
            self._producer = self._begin(cluster)
        self._load(Contents(cluster, topic))

    def __contains__(self, place: Place) -> bool:
        return place.part in self._replayed and place.offset in self._replayed[place.part]

    def deliver(self, places: Sequence[Place], send: Callable[[Producer | None], object]) -> None:
        """Send letters and write down that they were replayed, in one transaction.

        Raises:
            ReplayError: the transaction was aborted, or nobody answered whether it was committed;
                either way the ledger has what went.
        """
        assert self._producer is not None
        with self._transaction(self._producer):
            send(self._producer)
            for part, offsets in ranges(places).items():
                key = f"{self._letters.name}/{self._letters.id}/{part}/{offsets[0][0]}"
                entry = {"at": EventTime.now().isoformat(), "offsets": offsets}
                self._producer.produce(self._name, json.dumps(entry).encode(), key.encode())

    def _begin(self, cluster: Cluster) -> Producer:
        identifier = f"fluent-bridge-replay-{self._name}"
        try:
            producer = Producer(
                cluster.options(
                    transactional_id=identifier,
                    transaction_timeout_ms=int(_TRANSACTION_TIMEOUT * 1000),
                    **PRODUCER,
                )
            )
            producer.init_transactions(_TIMEOUT)
        except KafkaException as error:
            raise ReplayError(
                f"no transactions at {cluster.brokers} with transactional id {identifier!r}:"
                f" {error.args[0].str()}"
            ) from None
        return producer

    @contextmanager
    def _transaction(self, producer: Producer) -> Iterator[None]:
        try:
            producer.begin_transaction()
            yield
            self._commit(producer)
        except BaseException as error:
            with suppress(KafkaException):
                producer.abort_transaction(_TIMEOUT)
            if isinstance(error, KafkaException):
                raise self._failed(error.args[0]) from None
            raise

    def _commit(self, producer: Producer) -> None:
        deadline = time.monotonic() + _TRANSACTION_TIMEOUT
        while True:
            try:
                producer.commit_transaction(_TIMEOUT)
            except KafkaException as error:
                # It may have been committed, and only its answer be missing: to ask again is right.
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise
            else:
                return

    def _failed(self, error: KafkaError) -> ReplayError:
        if error.code() in _FENCED:
            return ReplayError(
                f"another replay with the ledger {self._name!r} began, and goes on with what this"
                " one has not replayed"
            )
        return ReplayError(
            f"a transaction failed: {error.str()}. When that is mended, run it again: what is in"
            f" the ledger {self._name!r} stays out"
        )

    def _load(self, contents: Contents) -> None:
        ours = f"{self._letters.name}/{self._letters.id}/".encode()
        found: defaultdict[int, list[list[int]]] = defaultdict(list)
        for part, offset, key, value in contents:
            if key is None or not key.startswith(ours):
                continue
            number = key.removeprefix(ours).partition(b"/")[0]  # an id may hold a slash too
            try:
                found[int(number)] += json.loads(value or b"")["offsets"]
            except (ValueError, KeyError, TypeError, IndexError) as error:
                raise ReplayError(
                    f"{self._name} [{part}] offset {offset} is no entry of a ledger ({error!r});"
                    " name another topic with --ledger"
                ) from None
        for replayed, offsets in found.items():
            self._replayed[replayed].add(offsets)


def _create(cluster: Cluster, name: str) -> Topic:
    topic: Any = NewTopic(
        name,
        num_partitions=1,
        replication_factor=-1,  # as many as the brokers give by default
        config={"cleanup.policy": "compact"},
    )
    try:
        cluster.admin.create_topics([topic], operation_timeout=_TIMEOUT)[name].result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # by another run just now
            raise SettingsError(
                f"the ledger, topic {name!r}, cannot be created: {error.args[0].str()}; create it"
                " with cleanup.policy=compact, or name another with --ledger"
            ) from None
    # The controller has it; the broker that is asked learns of it a moment later.
    deadline = time.monotonic() + _TIMEOUT
    while (found := cluster.find(name)) is None:
        if time.monotonic() > deadline:
            raise ReplayError(f"topic {name!r} was created and is not there")
        time.sleep(0.05)
    return found


def _require_compaction(cluster: Cluster, name: str) -> None:
    resource = ConfigResource(ConfigResource.Type.TOPIC, name)
    try:
        config = cluster.admin.describe_configs([resource])[resource].result(_TIMEOUT)
    except KafkaException:
        return  # one may be allowed to use it and not to look at its settings
    policy = config["cleanup.policy"].value
    if policy != "compact":
        raise SettingsError(
            f"topic {name!r} has cleanup.policy={policy}: as a ledger it would forget what was"
            " replayed; set it to compact, or name another with --ledger"
        )
