"""The pipelines that ``benchmarks.kafka`` measures, each from one topic to another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from benchmarks.spark import JOB, Installed, Spark
from benchmarks.spark import role as role_of_spark
from bridge.local.fluentd import Fluentd, configuration, plugin
from bridge.local.sidecar import Sidecar

_HERE = Path(__file__).parent
_DECORATION = '\n\nimport bridge\n\nbridge.filter("**")(enrich)\n'


class Road(Protocol):
    """A pipeline that can be started once.

    Attributes:
        name: what it is called in the table.
    """

    name: str

    def start(self, bootstrap: str, topics: tuple[str, str], folder: Path) -> list[int]:
        """Start it between two topics → the ids of its programs."""

    def stop(self) -> None:
        """End all of it."""

    def log(self) -> str:
        """Return the last lines of what it has written."""

    @staticmethod
    def role(pid: int, command: str) -> str | None:
        """Return which of its processes one is."""


def _role(_pid: int, command: str) -> str:
    if "fluentd" in command:
        return "Fluentd"
    return "workers" if "bridge.workers" in command else "sidecar"


class Fluentds:
    """Fluentd, with or without a sidecar.

    Args:
        name: its name in the table.
        conf: Fluentd's configuration.
        settings: variables for it, beside brokers, topics and group.
        forward: whether a sidecar stands behind Fluentd's Forward port.
        rpc: whether one stands behind a Unix socket.
    """

    role = staticmethod(_role)

    def __init__(
        self,
        name: str,
        conf: Path,
        settings: dict[str, str] | None = None,
        *,
        forward: bool = False,
        rpc: bool = False,
        workers: int = 2,
    ) -> None:
        self.name = name
        self._conf = conf
        self._settings = settings or {}
        self._forward = forward
        self._rpc = rpc
        self._workers = workers
        self._fluentd: Fluentd | None = None
        self._sidecar: Sidecar | None = None

    def start(self, bootstrap: str, topics: tuple[str, str], folder: Path) -> list[int]:
        """Start it between two topics → the ids of its programs."""
        socket = folder / "sidecar.sock"
        self._fluentd = fluentd = Fluentd(
            folder,
            {
                "KAFKA_BROKERS": bootstrap,
                "KAFKA_GROUP": topics[1],
                "INPUT_TOPICS": topics[0],
                "OUTPUT_TOPIC": topics[1],
                "DEAD_LETTER_TOPIC": topics[1],
                "SIDECAR_SOCKET": str(socket),
                "TRANSACTIONAL_ID": topics[1],
                "FORMAT": "text",
                **self._settings,
            },
            conf=self._conf,
            arguments=plugin(),
            listens=self._forward,
        )
        if not (self._forward or self._rpc):
            fluentd.start()
            return [fluentd.pid]
        filters = folder / "filters"
        filters.mkdir(parents=True)
        function = (JOB.parent / "enrich.py").read_text()
        (filters / "enrich.py").write_text(function + _DECORATION)
        settings: dict[str, object] = {"filters.payload": "json", "workers.count": self._workers}
        if self._forward:
            settings["downstream.port"] = fluentd.return_port
        else:
            settings |= {"listen.enabled": "false", "rpc.socket": socket}
        self._sidecar = sidecar = Sidecar(filters, folder, settings)
        fluentd.settings["SIDECAR_PORT"] = str(sidecar.port)
        sidecar.start()
        fluentd.start()
        return [fluentd.pid, sidecar.pid]

    def stop(self) -> None:
        """End all of it."""
        for part in (self._fluentd, self._sidecar):
            if part is not None:
                part.stop(10)

    def log(self) -> str:
        """Return the last lines of what it has written."""
        return "" if self._fluentd is None else self._fluentd.output()[-3000:]


class SparkRoad:
    """The Spark job with one kind of UDF."""

    def __init__(
        self, installed: Installed, udf: str, options: Sequence[str] = (), *, follow: bool = False
    ) -> None:
        self.name = f"Spark {installed.version}, {udf} UDF"
        self._installed = installed
        self._udf = udf
        self._options = options
        self._follow = follow
        self._spark: Spark | None = None

    def start(self, bootstrap: str, topics: tuple[str, str], folder: Path) -> list[int]:
        """Start it between two topics → the ids of its programs."""
        self._spark = Spark(
            self._installed,
            self._udf,
            bootstrap=bootstrap,
            topics=topics,
            folder=folder,
            follow=self._follow,
            options=tuple(self._options),
        )
        return self._spark.start()

    def stop(self) -> None:
        """End all of it."""
        if self._spark is not None:
            self._spark.stop()

    def log(self) -> str:
        """Return the last lines of what it has written."""
        return "" if self._spark is None else self._spark.program.tail()

    @staticmethod
    def role(_pid: int, command: str) -> str:
        """Return which part of Spark a process is."""
        return role_of_spark(command)


def fluentds() -> dict[str, Fluentds]:
    """Return the pipelines of Fluentd, by what they are called on the command line."""
    exactly_once = configuration("exactly-once")
    alone = _HERE / "fluentd" / "alone.conf"
    return {
        "exactly-once": Fluentds(
            "road C, exactly once", exactly_once, {"DELIVERY": "exactly_once"}, rpc=True
        ),
        "at-least-once": Fluentds(
            "road C, at least once", exactly_once, {"DELIVERY": "at_least_once"}, rpc=True
        ),
        "forward": Fluentds("road A, stock plugins", configuration("forward"), forward=True),
        "alone-exactly-once": Fluentds(
            "Fluentd alone, our plugins, exactly once", alone, {"DELIVERY": "exactly_once"}
        ),
        "alone-at-least-once": Fluentds(
            "Fluentd alone, our plugins, at least once", alone, {"DELIVERY": "at_least_once"}
        ),
        "stock": Fluentds("Fluentd alone, stock plugins", _HERE / "fluentd" / "stock.conf"),
    }
