"""What there is to be built in k8s/, and how to find something in what comes out."""

import itertools
from pathlib import Path

from bridge.settings import Settings

ROOT = Path(__file__).parents[3]
K8S = ROOT / "k8s"
EXAMPLE = ROOT / "examples" / "kustomize"
COMPONENTS = sorted(folder.name for folder in (K8S / "components").iterdir())
COMBINATIONS = [
    (),
    *((one,) for one in COMPONENTS),
    *itertools.combinations(COMPONENTS, 2),
    tuple(COMPONENTS),
]
OVERLAYS = [*sorted((K8S / "overlays").iterdir()), EXAMPLE]


def the(kind, documents):
    (one,) = (each for each in documents if each["kind"] == kind)
    return one


def containers(documents):
    """The sidecar and Fluentd, by name, from the pod of the StatefulSet."""
    pod = the("StatefulSet", documents)["spec"]["template"]["spec"]
    return {one["name"]: one for one in [*pod["initContainers"], *pod["containers"]]}


def environment(container):
    return {one["name"]: one.get("value") for one in container["env"]}


def variables(documents):
    """Fluentd's whole environment: that of the ConfigMap, and over it the container's."""
    (source,) = containers(documents)["fluentd"]["envFrom"]
    (data,) = (
        each["data"]
        for each in documents
        if each["kind"] == "ConfigMap"
        and each["metadata"]["name"] == source["configMapRef"]["name"]
    )
    return data | environment(containers(documents)["fluentd"])


def walk(value, path=()):
    """Every value with the names that lead to it, numbers of list entries left out."""
    yield path, value
    if isinstance(value, dict):
        for name, each in value.items():
            yield from walk(each, (*path, name))
    elif isinstance(value, list):
        for each in value:
            yield from walk(each, path)


def specs(documents):
    """Every value of what is no ConfigMap or Secret."""
    return (pair for each in documents if "data" not in each for pair in walk(each))


def sidecar_settings(container, file=None):
    """The settings that the sidecar in the pod has; all of its variables have to be settings."""
    environ = {
        one["name"]: one.get("value", "1")  # the number of CPUs
        for one in container["env"]
        if one["name"] != "FLUENT_BRIDGE_CONFIG"
    }
    return Settings.load([] if file is None else ["--config", str(file)], environ)
