"""The project's pods on the node: a user's repository, a copy of examples/kustomize, in a namespace of its own."""

import json
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import yaml
from ids import ENRICH
from kubernetes_node import Node
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
NAME = "fluent-bridge"
SELECTOR = f"app.kubernetes.io/name={NAME}"
FILTER = "10_ads.py"
REPLICAS = 2  # of the example
MOST_REPLICAS = 4  # while scaling
SIDECAR, FLUENTD = 24280, 24231  # ports of health and metrics
PATIENCE = 240  # seconds for what is expected of the cluster


class Pods:
    """A StatefulSet of the project, as `kubectl apply -k` makes it of a user's repository.

    Args:
        kubectl: runs it.
        folder: empty; for the repository, and for the manifests that it refers to.
        namespace: made here; it enforces the Pod Security Standard "restricted".
        components: names of k8s/components.
    """

    def __init__(self, kubectl, folder, namespace, topics, *, components=()):
        self._kubectl = kubectl
        self.namespace = namespace
        self.repository = folder / "examples" / "kustomize"
        shutil.copytree(ROOT / "k8s", folder / "k8s")
        shutil.copytree(
            ROOT / "fluent-conf", folder / "fluent-conf", ignore=shutil.ignore_patterns("fluent-p*")
        )
        shutil.copytree(ROOT / "examples" / "kustomize", self.repository)
        self._folder = folder
        self._mine = folder / "mine"
        self._mine.mkdir()
        self._kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": namespace,
            "resources": ["../examples/kustomize"],
            "components": [f"../k8s/components/{name}" for name in components],
            "configMapGenerator": [
                {
                    "name": "fluentd-env",
                    "behavior": "merge",
                    "literals": [
                        f"{name}={value}"
                        for name, value in {
                            "KAFKA_GROUP": topics.group,
                            "INPUT_TOPICS": topics.input,
                            "OUTPUT_TOPIC": topics.output,
                            "DEAD_LETTER_TOPIC": topics.dead,
                        }.items()
                    ],
                }
            ],
            "secretGenerator": [
                {
                    "name": "fluent-bridge-kafka",
                    "behavior": "merge",
                    "literals": [f"KAFKA_BROKERS={topics.kafka.bootstrap}"],
                }
            ],
        }
        self.write_filter(ENRICH)

    def folder(self):
        """Return a new folder."""
        return Path(tempfile.mkdtemp(dir=self._folder))

    def write_filter(self, text):
        """Change the repository's filter; :meth:`apply` brings it into the cluster."""
        (self.repository / "filters" / FILTER).write_text(text)

    def kubectl(self, *arguments, **options):
        return self._kubectl("--namespace", self.namespace, *arguments, **options)

    def create(self):
        """Make the namespace."""
        self._kubectl("create", "namespace", self.namespace)
        level = "pod-security.kubernetes.io/enforce=restricted"
        self._kubectl("label", "namespace", self.namespace, level)

    def apply(self):
        """Bring the repository into the cluster."""
        (self._mine / "kustomization.yaml").write_text(yaml.safe_dump(self._kustomization))
        self._kubectl("apply", "-k", self._mine)

    def remove(self):
        """Remove the namespace with all that is in it."""
        self._kubectl("delete", "namespace", self.namespace, "--timeout", f"{PATIENCE}s")

    def all(self):
        """Return the pods, by name."""
        items = json.loads(self.kubectl("get", "pods", "--selector", SELECTOR, "-o", "json"))[
            "items"
        ]
        return {pod["metadata"]["name"]: pod for pod in items}

    def uids(self):
        return {pod["metadata"]["uid"] for pod in self.all().values()}

    def ready(self):
        """Return the pods that are ready, by name, those that are to end left out."""
        return {
            name: pod
            for name, pod in self.all().items()
            if "deletionTimestamp" not in pod["metadata"]
            and {"type": "Ready", "status": "True"}.items()
            <= next(
                (c for c in pod["status"].get("conditions", ()) if c["type"] == "Ready"), {}
            ).items()
        }

    def wait_ready(self, count):
        """Return the pods once there are so many, all of them ready."""
        await_until(
            lambda: len(self.ready()) == count == len(self.all()),
            lambda: f"{count} pods are to be ready\n{self.describe()}",
        )
        return self.all()

    def scale(self, count):
        self.kubectl("scale", f"statefulset/{NAME}", f"--replicas={count}")
        self.wait_ready(count)

    def rollout(self, verb):
        """Begin a rollout, and wait until it is over."""
        self.kubectl("rollout", verb, f"statefulset/{NAME}")
        self.wait_rollout()

    def wait_rollout(self):
        self.kubectl("rollout", "status", f"statefulset/{NAME}", "--timeout", f"{PATIENCE}s")

    def restarts(self):
        """Return how often each container has been started again, by pod and container."""
        return {
            (name, container): status["restartCount"]
            for name, pod in self.all().items()
            for container, status in statuses(pod).items()
        }

    def kill(self, pod, container):
        """End a container by SIGKILL, and wait until it is there again and its pod ready."""
        before = self.restarts()[pod, container]
        Node.kill(container_id(self.all()[pod], container))
        await_until(
            lambda: self.restarts().get((pod, container), 0) > before and pod in self.ready(),
            lambda: f"{container} of {pod} was not started again\n{self.describe()}",
        )

    def fetch(self, pod, path, port=SIDECAR):
        """Return the status and the text of a page of a pod."""
        address = self.all()[pod]["status"]["podIP"]
        try:
            with urllib.request.urlopen(f"http://{address}:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, pod, name, port=SIDECAR, **labels):
        """Return the sum of a metric's series that have these labels."""
        _, text = self.fetch(pod, "/metrics", port)
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def describe(self):
        """Return what somebody would look at who finds something wrong."""
        parts = [
            self.kubectl("get", "pods", "-o", "wide", check=False).stdout,
            self.kubectl("get", "events", "--sort-by", ".lastTimestamp", check=False).stdout[
                -4000:
            ],
        ]
        for pod in self.all():
            for container in ("sidecar", "fluentd"):
                for more in ((), ("--previous",)):
                    log = self.kubectl(
                        "logs", pod, "-c", container, "--tail", "40", *more, check=False
                    )
                    if log.returncode == 0:
                        parts.append(f"--- {pod} {container} {' '.join(more)}\n{log.stdout}")
        return "\n".join(parts)


def statuses(pod):
    """Return the statuses of a pod's containers, the sidecar's too, by name."""
    status = pod["status"]
    both = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    return {each["name"]: each for each in both}


def container_id(pod, container):
    """Return containerd's id of a container."""
    return statuses(pod)[container]["containerID"].removeprefix("containerd://")


def await_until(condition, explain, patience=PATIENCE):
    """Wait for a condition; say what was awaited if it does not come."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"after {patience} s: {explain()}"
        time.sleep(0.5)
