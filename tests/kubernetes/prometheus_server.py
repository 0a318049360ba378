"""A real Prometheus that labels what it scrapes as the operator has it do by the PodMonitor of the component `monitoring`."""

import json
import shutil
import urllib.parse
import urllib.request

import yaml
from monitoring import MONITOR
from pods import NAME, await_until

from bridge.local.processes import Program, free_port

PROGRAM = "prometheus"
LABEL = MONITOR["podTargetLabels"][0].replace(".", "_").replace("/", "_")


class PrometheusServer:
    """Runs inside a `with`.

    Args:
        folder: empty; for its configuration and its data.
        targets: what it scrapes, each a (namespace, pod, container, address, path).
        rules: the groups of a PrometheusRule.
        interval: between two scrapes, and between two evaluations of the rules.
    """

    @staticmethod
    def missing():
        return None if shutil.which(PROGRAM) else f"{PROGRAM} is not on the PATH"

    def __init__(self, folder, targets, rules, interval="2s"):
        self._port = free_port()
        (folder / "rules.yml").write_text(yaml.safe_dump(rules))
        (folder / "prometheus.yml").write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": interval, "evaluation_interval": interval},
                    "rule_files": ["rules.yml"],
                    "scrape_configs": [
                        {
                            "job_name": "pods",
                            "static_configs": [
                                {
                                    "targets": [address],
                                    "labels": {
                                        "__metrics_path__": path,
                                        "namespace": namespace,
                                        "job": f"{namespace}/{NAME}",
                                        "pod": pod,
                                        "container": container,
                                        LABEL: NAME,
                                    },
                                }
                                for namespace, pod, container, address, path in targets
                            ],
                        }
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

    def _get(self, path):
        url = f"http://127.0.0.1:{self._port}/{path}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read()

    def _ready(self):
        try:
            return self._get("-/ready")
        except OSError:
            return False

    def ask(self, path, **parameters):
        """Return what a path of its API answers."""
        return json.loads(self._get(f"api/v1/{path}?{urllib.parse.urlencode(parameters)}"))["data"]

    def query(self, expression):
        return self.ask("query", query=expression)["result"]

    def firing(self):
        """Return the alerts that fire, by their names and pods; an alert may be of no pod."""
        return {
            (alert["labels"]["alertname"], alert["labels"].get("pod")): alert
            for alert in self.ask("alerts")["alerts"]
            if alert["state"] == "firing"
        }

    def await_alert(self, name, pods):
        """Wait until an alert fires for each of these pods."""
        wanted = {(name, pod) for pod in pods}
        await_until(
            lambda: wanted <= self.firing().keys(),
            lambda: f"{wanted} do not fire: {set(self.firing())}",
        )
