"""A real Prometheus with the rules of the component `monitoring`, that scrapes pods of the node."""

import json
import shutil
import urllib.request

import yaml
from pods import FLUENTD, NAME, SIDECAR, await_until

from bridge.local.processes import Program, free_port

PROGRAM = "prometheus"
INTERVAL = "2s"


def missing():
    return None if shutil.which(PROGRAM) else f"{PROGRAM} is not on the PATH"


class PrometheusServer:
    """Started with the pods that are there.

    Args:
        folder: empty; for its configuration and its data.
        pods: what it scrapes.
        rules: the groups of a PrometheusRule.
    """

    def __init__(self, folder, pods, rules):
        self._port = free_port()
        (folder / "rules.yml").write_text(yaml.safe_dump(rules))
        (folder / "prometheus.yml").write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL},
                    "rule_files": ["rules.yml"],
                    "scrape_configs": [
                        {
                            "job_name": f"{container}",
                            "metrics_path": path,
                            "static_configs": [
                                {
                                    "targets": [f"{pod['status']['podIP']}:{port}"],
                                    # As a PodMonitor has the operator label them.
                                    "labels": {
                                        "namespace": pods.namespace,
                                        "pod": name,
                                        "container": container,
                                        "app_kubernetes_io_name": NAME,
                                    },
                                }
                                for name, pod in pods.all().items()
                            ],
                        }
                        for container, port, path in (
                            ("sidecar", SIDECAR, "/metrics"),
                            ("fluentd", FLUENTD, "/aggregated_metrics"),
                        )
                    ],
                }
            )
        )
        self._program = Program(
            [
                PROGRAM,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
            log=folder / "prometheus.log",
        )

    def __enter__(self):
        self._program.start(self._ready, timeout=60)
        return self

    def __exit__(self, *_):
        self._program.stop(10)

    def _ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5):
                return True
        except OSError:
            return False

    def firing(self):
        """Return the alerts that fire: (name, pod)."""
        url = f"http://127.0.0.1:{self._port}/api/v1/alerts"
        with urllib.request.urlopen(url, timeout=10) as answer:
            alerts = json.load(answer)["data"]["alerts"]
        return {
            (alert["labels"]["alertname"], alert["labels"].get("pod"))
            for alert in alerts
            if alert["state"] == "firing"
        }

    def await_alert(self, name, pods):
        """Wait until an alert fires for each of these pods."""
        wanted = {(name, pod) for pod in pods}
        await_until(
            lambda: wanted <= self.firing(), lambda: f"{wanted} do not fire: {self.firing()}"
        )
