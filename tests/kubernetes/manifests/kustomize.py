"""What there is to be built in k8s/, and how to find something in what comes out."""

import itertools
import math
import re
from pathlib import Path

import yaml

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
# They build, and are in each other's way: their heads say so.
NOT_TOGETHER = {
    ("autoscale-hpa", "autoscale-keda"),
    ("autoscale-hpa", "forward"),
    ("autoscale-keda", "forward"),
}
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


def head(folder):
    """The comment that a kustomization begins with."""
    text = (folder / "kustomization.yaml").read_text().split("\napiVersion:")[0]
    return re.sub("^# ?", "", text, flags=re.MULTILINE)


def patches_in_the_head(component):
    lines = head(component).splitlines(keepends=True)
    return yaml.safe_load("".join(one for one in lines if one.startswith(("  - ", "    "))))


def blocks(file):
    """What stands between ``` in a document, or is indented there, and is the beginning of a kustomization."""
    text = file.read_text()
    found = re.findall(r"```\n(.*?)```", text, re.DOTALL) + re.findall(
        r"(?:^    .*\n)+", text, re.MULTILINE
    )
    return [yaml.safe_load(one) for one in found if re.match(r" *(patches|namePrefix):", one)]


def cpus(container):
    """The CPUs that a container requests, rounded up, as Kubernetes does for a variable."""
    number, milli = re.fullmatch(r"(\d+)(m?)", container["resources"]["requests"]["cpu"]).groups()
    return math.ceil(int(number) / (1000 if milli else 1))


def specs(documents):
    """Every value of what is no ConfigMap or Secret."""
    return (pair for each in documents if "data" not in each for pair in walk(each))


def sidecar_settings(container, file=None):
    """The settings that the sidecar in the pod has; all of its variables have to be settings."""
    environ = {
        one["name"]: one.get("value", str(cpus(container)))
        for one in container["env"]
        if one["name"].startswith("FLUENT_BRIDGE_") and one["name"] != "FLUENT_BRIDGE_CONFIG"
    }
    return Settings.load([] if file is None else ["--config", str(file)], environ)
