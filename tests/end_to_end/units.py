"""What the tests of road C are made of: replicas of the pipeline."""

import threading

from bridge.local.fluentd import Fluentd, configuration, plugin
from bridge.local.sidecar import Sidecar

SESSION_TIMEOUT = 6  # the least that a broker allows (group.min.session.timeout.ms)
TRANSACTION_TIMEOUT = 10


class Replica:
    """What a pod is: a Fluentd and its sidecar."""

    def __init__(self, name, folder, filters, bootstrap, topics, *, conf=None, **settings):
        self.name = name
        self.folder = folder / name
        socket = folder / f"{name}.sock"
        self.sidecar = Sidecar(
            filters,
            self.folder,
            {
                "listen.enabled": "false",
                "rpc.socket": socket,
                "filters.payload": "json",
                "workers.count": 1,
            },
        )
        self.fluentd = Fluentd(
            self.folder,
            {
                "KAFKA_BROKERS": bootstrap,
                "KAFKA_GROUP": topics.group,
                "INPUT_TOPICS": topics.input,
                "OUTPUT_TOPIC": topics.output,
                "DEAD_LETTER_TOPIC": topics.dead,
                "SIDECAR_SOCKET": str(socket),
                "TRANSACTIONAL_ID": f"{topics.group}-{name}",
                "SESSION_TIMEOUT": str(SESSION_TIMEOUT),
                "TRANSACTION_TIMEOUT": str(TRANSACTION_TIMEOUT),
                **settings,
            },
            conf=conf or configuration("exactly-once"),
            arguments=plugin(),
            listens=False,
        )

    @property
    def log(self):
        return self.folder / "fluentd.log"

    def start(self):
        self.sidecar.start()
        self.fluentd.start()

    def stop(self):
        self.fluentd.stop()
        self.sidecar.stop()

    def kill(self):
        self.fluentd.kill()
        self.sidecar.kill()


def start_all(replicas):
    """Start replicas side by side."""
    failures = []

    def start(replica):
        try:
            replica.start()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=start, args=(replica,)) for replica in replicas]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
