"""Kafka and Fluentd in containers, where the programs are not on the PATH.

The same interface as `KafkaBroker` and `Fluentd`. Both share the host's network, so that addresses
are the same inside and outside, and a port survives a stop and a start.
"""

import contextlib
import gc
import io
import os
import time
import warnings

import docker
from testcontainers.core.container import DockerContainer

from bridge.local.fluentd import configuration
from bridge.local.kafka import CLUSTER_ID, _answers, create_topic, server_properties
from bridge.local.processes import ProgramError, free_port, listening

KAFKA_IMAGE = "apache/kafka:4.1.0"
FLUENTD_IMAGE = "fluent-bridge-test-fluentd"
# As "How to build your own image" in Fluentd's image has it; digest-crc wants a compiler.
FLUENTD_DOCKERFILE = """\
FROM fluent/fluentd:v1.18-debian-1
USER root
RUN apt-get update && apt-get install -y --no-install-recommends make gcc g++ libc-dev \\
 && gem install --no-document fluent-plugin-kafka --version 0.19.9
"""


def missing():
    """Return why there can be no containers, None where there can."""
    with warnings.catch_warnings():
        # Where nothing listens, docker's client leaves its socket to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            with contextlib.closing(docker.from_env(timeout=10)) as client:
                client.ping()
            why = None
        except docker.errors.DockerException as error:
            why = f"no container engine answers ({error})"
        gc.collect()
    return why


class Container:
    """A container that keeps its files over a stop and a start."""

    def __init__(self, container):
        self._container = container.with_kwargs(network_mode="host")
        self._made = False
        self._since = None

    @property
    def running(self):
        return self._made and self._container.status == "running"

    def _start(self, ready, timeout):
        self._since = time.time()
        if self._made:
            self._container.get_wrapped_container().start()
        else:
            self._container.start()
            self._made = True
        deadline = time.monotonic() + timeout
        while not ready():
            if not self.running or time.monotonic() > deadline:
                raise ProgramError(
                    f"{self._container.image} did not start:\n{self.output()[-4000:]}"
                )
            time.sleep(0.2)

    def output(self):
        if not self._made:
            return ""
        log = self._container.get_wrapped_container().logs(since=self._since)
        return log.decode(errors="replace")

    def stop(self, grace=60.0):
        if not self.running:
            return 0
        container = self._container.get_wrapped_container()
        container.stop(timeout=int(grace))
        return container.wait()["StatusCode"]

    def kill(self):
        if self.running:
            container = self._container.get_wrapped_container()
            container.kill()
            container.wait()

    def remove(self):
        if self._made:
            self._container.stop()
            self._made = False


class ContainerKafka(Container):
    real = True

    def __init__(self):
        self.port = free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        settings = server_properties(self.port, free_port(), "/tmp/kraft-combined-logs")
        # docker/examples/README.md in apache/kafka: KAFKA_ and the setting's name, _ for its dots.
        environment = {f"KAFKA_{key.upper().replace('.', '_')}": settings[key] for key in settings}
        super().__init__(
            DockerContainer(KAFKA_IMAGE).with_envs(CLUSTER_ID=CLUSTER_ID, **environment)
        )

    def start(self, timeout=120.0):
        self._start(lambda: listening(self.port) and _answers(self.bootstrap), timeout)

    def create_topic(self, name, partitions=4, **config):
        create_topic(self.bootstrap, name, partitions, **config)


class ContainerFluentd(Container):
    def __init__(self, folder, settings, *, conf=None):
        conf = conf or configuration()
        (folder / "buffers").mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.settings = {
            "BUFFER_DIR": str(folder / "buffers"),
            "RETURN_PORT": str(free_port()),
            **settings,
        }
        self.return_port = int(self.settings["RETURN_PORT"])
        self._conf = conf
        super().__init__(
            DockerContainer(FLUENTD_IMAGE, user=f"{os.getuid()}:{os.getgid()}")
            .with_command(["fluentd", "--config", str(conf)])
            .with_volume_mapping(str(conf), str(conf), "ro")
            .with_volume_mapping(str(folder), str(folder), "rw")
        )

    @staticmethod
    def build():
        with contextlib.closing(docker.from_env(timeout=600)) as client:
            client.images.build(fileobj=io.BytesIO(FLUENTD_DOCKERFILE.encode()), tag=FLUENTD_IMAGE)

    def start(self, timeout=60.0):
        self._container.with_envs(**self.settings)
        self._start(
            lambda: (
                "fluentd worker is now running" in self.output() and listening(self.return_port)
            ),
            timeout,
        )

    def restart(self, grace=60.0, timeout=60.0):
        self.stop(grace)
        self.start(timeout)
