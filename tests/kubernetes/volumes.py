"""Volumes for pods, in folders of this machine: the node provisions none by itself."""

import json
from pathlib import Path

_CLASS = "local"
_ANY_NODE = {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}


class Volumes:
    """Local volumes of one owner.

    Args:
        kubectl: runs it.
        folder: empty.
        owner: what their names begin with.
    """

    def __init__(self, kubectl, folder, owner):
        self._kubectl = kubectl
        self._folder = folder
        self._owner = owner
        self._names = []

    def create(self, count):
        """Make volumes, for claims that ask for no class.

        The scheduler binds them, as is usual for local volumes: left to the controller, a pod once
        stayed Pending for more than four minutes.
        """
        self._apply(
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {
                    "name": _CLASS,
                    "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
                },
                "provisioner": "kubernetes.io/no-provisioner",
                "volumeBindingMode": "WaitForFirstConsumer",
            }
        )
        for number in range(count):
            name = f"{self._owner}-{number}"
            path = self._folder / name
            path.mkdir()
            self._names.append(name)
            self._apply(
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolume",
                    "metadata": {"name": name},
                    "spec": {
                        "capacity": {"storage": "100Gi"},
                        "accessModes": ["ReadWriteOnce"],
                        "persistentVolumeReclaimPolicy": "Retain",
                        "storageClassName": _CLASS,
                        "local": {"path": str(path)},
                        "nodeAffinity": {
                            "required": {"nodeSelectorTerms": [{"matchExpressions": [_ANY_NODE]}]}
                        },
                    },
                }
            )

    def _apply(self, manifest):
        self._kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    def remove(self):
        for name in self._names:
            self._kubectl("delete", "persistentvolume", name, "--wait=false")

    def _path(self, pod):
        """Return the folder of a pod's volume."""
        claim = f"buffers-{pod}"
        volume = self._kubectl(
            "get",
            "persistentvolumeclaim",
            claim,
            "--namespace",
            self._owner,
            "-o",
            "jsonpath={.spec.volumeName}",
        )
        return self._folder / Path(volume)

    def chunks(self, pod):
        """Return how many chunks stand in the first buffer of a pod, the one before the sidecar."""
        return sum(1 for file in self._path(pod).glob("worker*/to_sidecar/buffer/*.log"))
