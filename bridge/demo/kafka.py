"""Kafka brokers for demos and tests: a real one, and librdkafka's mock cluster."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from bridge.demo.processes import Program, ProgramError, free_port, listening

# Names as in Kafka's own distribution, below bin/.
SERVER_START = "kafka-server-start.sh"
STORAGE = "kafka-storage.sh"

CLUSTER_ID = "fluent-bridge-demo-000"  # 22 characters, as kafka-storage.sh random-uuid writes


def server_properties(port: int, controller_port: int, data: Path) -> dict[str, str]:
    """Return the settings of a broker of one node, as they stand in ``server.properties``.

    Args:
        port: where clients connect, on 127.0.0.1.
        controller_port: where the node talks to itself.
        data: the folder of its log segments.
    """
    return {
        "node.id": "1",
        "process.roles": "broker,controller",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
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
        # A misspelt topic is an error and no new topic.
        "auto.create.topics.enable": "false",
    }


class KafkaBroker:
    """A real Apache Kafka of one node: broker and KRaft controller in one process.

    Stopping or killing it keeps its data; :meth:`start` goes on with them on the same port.

    Args:
        folder: an empty or missing folder for its configuration, data and log.
    """

    real = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self._properties = folder / "server.properties"
        self._program = Program([SERVER_START, str(self._properties)], log=folder / "kafka.log")

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
            self._format()
        self._program.start(self._answers, timeout=timeout)

    def _format(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = server_properties(self.port, free_port(), self.folder / "data")
        self._properties.write_text("".join(f"{key}={settings[key]}\n" for key in settings))
        try:
            subprocess.run(  # noqa: S603 - the command is our own
                [STORAGE, "format", "-t", CLUSTER_ID, "-c", str(self._properties)],
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
        return listening(self.port) and _answers(self.bootstrap)

    def stop(self, grace: float = 30.0) -> None:
        """End it in good order; after so many seconds by SIGKILL."""
        self._program.stop(grace)

    def kill(self) -> None:
        """End it by SIGKILL."""
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
            [sys.executable, "-m", "bridge.demo.mock_kafka"], log=folder / "mock-kafka.log"
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


def _answers(bootstrap: str) -> bool:
    try:
        return bool(_admin(bootstrap).list_topics(timeout=5).brokers)
    except KafkaException:
        return False


def _admin(bootstrap: str) -> Any:
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
