"""Kafka brokers for demos and tests: a real one, and librdkafka's mock cluster."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from bridge.local.processes import Program, ProgramError, free_port, listening

# Names as in Kafka's own distribution, below bin/.
SERVER_START = "kafka-server-start.sh"
STORAGE = "kafka-storage.sh"

_PROPAGATION = 10.0

# Seconds until a controller apart takes the partitions from a broker that is gone.
BROKER_SESSION_TIMEOUT = 2

CLUSTER_ID = "fluent-bridge-demo-000"  # 22 characters, as kafka-storage.sh random-uuid writes


def server_properties(
    port: int, controller_port: int, data: Path, *, host: str = "127.0.0.1"
) -> dict[str, str]:
    """Return the settings of a broker of one node, as they stand in ``server.properties``.

    Args:
        port: where clients connect.
        controller_port: where the node talks to itself.
        data: the folder of its log segments.
        host: the address that clients connect to.
    """
    return {
        "node.id": "1",
        "process.roles": "broker,controller",
        "listeners": f"PLAINTEXT://{host}:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{host}:{port}",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": str(data),
        # One broker cannot hold the three replicas that are the default.
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        # The first member of a group need not wait 3 s for others.
        "group.initial.rebalance.delay.ms": "0",
        # A transaction is aborted when its timeout is over, and not up to 10 s later.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        # Samples are old. Every 5 minutes Kafka deletes what is older than a week by its timestamp.
        "log.retention.ms": "-1",
        # A misspelt topic is an error and no new topic.
        "auto.create.topics.enable": "false",
    }


def apart(settings: dict[str, str], data: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the settings of a controller and of a broker, from those of a node that is both.

    Args:
        settings: as :func:`server_properties` returns them.
        data: the folder of the controller's log.
    """
    broker_listener, controller_listener = settings["listeners"].split(",")
    controller = {
        **settings,
        "process.roles": "controller",
        "listeners": controller_listener,
        "log.dirs": str(data),
        # A killed broker may only come back when its session is over: after 9 s by default.
        "broker.session.timeout.ms": str(BROKER_SESSION_TIMEOUT * 1000),
    }
    del controller["advertised.listeners"]
    broker = {
        **settings,
        "node.id": "2",
        "process.roles": "broker",
        "listeners": broker_listener,
        "broker.heartbeat.interval.ms": "500",
    }
    return controller, broker


class KafkaBroker:
    """A real Apache Kafka of one broker.

    Stopping or killing it keeps its data; :meth:`start` goes on with them on the same port.

    Args:
        folder: an empty or missing folder for its configuration, data and log.
        controller_apart: whether the KRaft controller is a process of its own and outlives a kill.
            A broker that is back before the controller has taken its partitions from it acts on its
            old metadata, then loses them for a moment, and drops the markers of the transactions
            that it ends in that moment for good (TransactionMarkerChannelManager.scala, "these
            partitions are likely deleted already"): what was committed may be lost to readers then.
            So one that is killed amid transactions wants a controller apart, and to be started no
            sooner than ``BROKER_SESSION_TIMEOUT`` seconds later.
        host: the address of this machine that clients connect to.
    """

    real = True

    def __init__(
        self, folder: Path, *, controller_apart: bool = False, host: str = "127.0.0.1"
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self._host = host
        self.bootstrap = f"{host}:{self.port}"
        self._properties = folder / "server.properties"
        self._program = Program([SERVER_START, str(self._properties)], log=folder / "kafka.log")
        self._controller: Program | None = None
        self._controller_properties = folder / "controller.properties"
        if controller_apart:
            self._controller = Program(
                [SERVER_START, str(self._controller_properties)], log=folder / "controller.log"
            )

    @staticmethod
    def missing() -> str | None:
        """Return why there can be none on this machine, None where there can."""
        for program in (SERVER_START, STORAGE):
            if shutil.which(program) is None:
                return f"{program} is not on the PATH"
        return None

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._program.running

    def start(self, timeout: float = 60.0) -> None:
        """Start it, and return when it answers.

        Args:
            timeout: seconds to wait at most.

        Raises:
            ProgramError: it did not start; the message has its log's tail.
        """
        if not self._properties.exists():
            self._configure()
        if self._controller is not None and not self._controller.running:
            self._controller.start(lambda: listening(self._controller_port), timeout=timeout)
        self._program.start(self._answers, timeout=timeout)

    def _configure(self) -> None:
        self._controller_port = free_port()
        settings = server_properties(
            self.port, self._controller_port, self.folder / "data", host=self._host
        )
        if self._controller is not None:
            controller, settings = apart(settings, self.folder / "controller")
            self._format(self._controller_properties, controller)
        self._format(self._properties, settings)

    def _format(self, file: Path, settings: dict[str, str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{key}={settings[key]}\n" for key in settings))
        try:
            subprocess.run(  # noqa: S603 - the command is our own
                [STORAGE, "format", "-t", CLUSTER_ID, "-c", str(file)],
                check=True,
                capture_output=True,
                text=True,
            )
        except OSError as error:
            raise ProgramError(f"{STORAGE} cannot be run: {error}") from error
        except subprocess.CalledProcessError as error:
            raise ProgramError(f"{STORAGE} failed:\n{error.stdout}{error.stderr}") from error

    def _answers(self) -> bool:
        # librdkafka writes to the terminal about a port that is closed: ask only an open one.
        return listening(self.port, self._host) and _answers(self.bootstrap)

    def stop(self, grace: float = 30.0) -> None:
        """End it in good order; after so many seconds by SIGKILL."""
        self._program.stop(grace)
        if self._controller is not None:
            self._controller.stop(grace)

    def kill(self) -> None:
        """End the broker by SIGKILL."""
        self._program.kill()

    def create_topic(self, name: str, partitions: int = 4, **config: str) -> None:
        """Create a topic.

        Args:
            name: its name.
            partitions: how many it has.
            config: its settings, ``_`` for ``.`` in their names.

        Raises:
            confluent_kafka.KafkaException: it exists already, or the broker is away.
        """
        create_topic(self.bootstrap, name, partitions, **config)

    def delete_topics(self, *names: str) -> None:
        """Delete topics with what is in them.

        Args:
            names: topics that exist.

        Raises:
            confluent_kafka.KafkaException: one does not, or the broker is away.
        """
        admin = _admin(self.bootstrap)  # has to outlive the calls
        for deleted in admin.delete_topics(list(names), operation_timeout=30).values():
            deleted.result(timeout=35)


class MockKafka:
    """librdkafka's mock cluster in a process of its own: for a demo where there is no Kafka.

    Keeps 5 MiB a partition and drops what is older without a word. A stop loses everything.

    Args:
        folder: where its log goes.
    """

    real = False
    partitions = 4  # of every topic; the mock cluster has no other number (rdkafka_mock.c)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bootstrap = ""
        self._program = Program(
            [sys.executable, "-m", "bridge.local.mock_kafka"], log=folder / "mock-kafka.log"
        )

    @staticmethod
    def missing() -> str | None:
        """Return None: it comes with confluent-kafka."""
        return None

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._program.running

    def start(self, timeout: float = 10.0) -> None:
        """Start it empty, at a new address.

        Args:
            timeout: seconds to wait at most.

        Raises:
            ProgramError: it did not start; the message has its log's tail.
        """
        self._program.start(lambda: "\n" in self._program.output(), timeout=timeout)
        self.bootstrap = self._program.output().splitlines()[-1]

    def stop(self, grace: float = 5.0) -> None:
        """End it; its messages are gone."""
        self._program.stop(grace)

    def kill(self) -> None:
        """End it by SIGKILL; its messages are gone."""
        self._program.kill()

    def create_topic(self, name: str, partitions: int = 4, **_config: str) -> None:
        """Create a topic by asking for it.

        Raises:
            ValueError: another number of partitions than 4 was asked for.
        """
        if partitions != self.partitions:
            raise ValueError(f"a topic of the mock cluster has 4 partitions, not {partitions}")
        _admin(self.bootstrap).list_topics(name, timeout=10)


def create_topic(bootstrap: str, name: str, partitions: int = 4, **config: str) -> None:
    """Create a topic of one replica on a real broker.

    Args:
        bootstrap: the brokers, ``host:port,...``.
        name: its name.
        partitions: how many it has.
        config: its settings, ``_`` for ``.`` in their names.

    Raises:
        confluent_kafka.KafkaException: it exists already, or no broker answered.
    """
    settings = {key.replace("_", "."): value for key, value in config.items()}
    topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=settings)
    admin = _admin(bootstrap)  # has to outlive the call
    admin.create_topics([topic], operation_timeout=30)[name].result(timeout=35)
    # The controller has it; the broker, which answers clients, learns of it a moment later.
    deadline = time.monotonic() + _PROPAGATION
    while admin.list_topics(name, timeout=10).topics[name].error and time.monotonic() < deadline:
        time.sleep(0.02)


def _answers(bootstrap: str) -> bool:
    try:
        return bool(_admin(bootstrap).list_topics(timeout=5).brokers)
    except KafkaException:
        return False


def _admin(bootstrap: str) -> Any:
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
