"""What stands in k8s/components/monitoring."""

import json
from pathlib import Path

import yaml

COMPONENT = Path(__file__).parents[2] / "k8s" / "components" / "monitoring"
GROUPS = yaml.safe_load((COMPONENT / "rules.yaml").read_text())["spec"]
RULES = {rule["alert"]: rule for group in GROUPS["groups"] for rule in group["rules"]}
MONITOR = yaml.safe_load((COMPONENT / "podmonitor.yaml").read_text())["spec"]
DASHBOARD = json.loads((COMPONENT / "fluent-bridge.json").read_text())

CONTAINERS = {"admin": "sidecar", "metrics": "fluentd"}  # by the names of their ports


def targets(namespace, pod, host, **ports):
    """Return what the PodMonitor has Prometheus scrape of a pod, whose ports are given by their names."""
    return [
        (namespace, pod, CONTAINERS[name], f"{host}:{ports[name]}", endpoint["path"])
        for endpoint in MONITOR["podMetricsEndpoints"]
        for name in [endpoint["port"]]
    ]
