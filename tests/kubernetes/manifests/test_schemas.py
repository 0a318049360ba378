"""Every combination of k8s/ builds, and each Kubernetes from 1.29 on takes it, where pods are restricted too."""

import json
import shutil
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kustomize import COMPONENTS, OVERLAYS, containers, specs, the

MINORS = sorted(
    {
        tuple(int(part) for part in version.split(".")[:2])
        for version in kubernetes_validate.utils.all_versions()
    }
)
SUPPORTED = [f"{major}.{minor}" for major, minor in MINORS if (major, minor) >= (1, 29)]

# Kinds that Kubernetes does not know itself: the module that their definitions come with, and the files in it.
DEFINITIONS = {
    "github.com/kedacore/keda/v2@v2.19.0": [
        "config/crd/bases/keda.sh_scaledobjects.yaml",
        "config/crd/bases/keda.sh_triggerauthentications.yaml",
    ],
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": [
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ],
}
OTHERS = {"keda.sh/v1alpha1", "monitoring.coreos.com/v1"}

# The schemas say of these that they are texts, and no more.
ENUMS = {
    "accessModes": {"ReadWriteOnce"},
    "fsGroupChangePolicy": {"OnRootMismatch"},
    "nodeTaintsPolicy": {"Honor"},
    "podManagementPolicy": {"Parallel"},
    "policyTypes": {"Ingress", "Egress"},
    "protocol": {"TCP", "UDP"},
    "restartPolicy": {"Always"},
    "terminationMessagePolicy": {"FallbackToLogsOnError"},
    "unhealthyPodEvictionPolicy": {"AlwaysAllow"},
    "whenDeleted": {"Retain"},
    "whenScaled": {"Retain"},
    "whenUnsatisfiable": {"DoNotSchedule", "ScheduleAnyway"},
}


@pytest.fixture(scope="session")
def definitions(kubectl):
    """The files that define kinds which are not Kubernetes' own."""
    if shutil.which("go") is None:
        pytest.skip(
            "go, which fetches the definitions of KEDA's and Prometheus' kinds, is not on the PATH"
        )
    files = []
    for module, names in DEFINITIONS.items():
        done = subprocess.run(
            ["go", "mod", "download", "-json", module], capture_output=True, text=True, cwd="/"
        )
        if done.returncode != 0:
            pytest.skip(f"go mod download {module}: {done.stdout}{done.stderr}")
        files += [Path(json.loads(done.stdout)["Dir"], name) for name in names]
    return files


def strict(schema):
    """A schema that takes no fields but those it names: the server would drop them without a word."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: strict(one) for name, one in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        schema.setdefault(
            "additionalProperties", schema.get("x-kubernetes-preserve-unknown-fields", False)
        )
    return schema


def test_components_and_overlays_are_those_that_are_known():
    assert len(COMPONENTS) == 8
    assert {folder.name for folder in OVERLAYS} == {"dev", "production", "kustomize"}
    assert len(SUPPORTED) >= 9


@pytest.fixture(scope="session")
def distinct(everything):
    """Each document that occurs anywhere, once, with the builds where it does."""
    found = {}
    for name, documents in everything.items():
        for each in documents:
            found.setdefault(json.dumps(each, sort_keys=True), []).append(name)
    return [(json.loads(text), names) for text, names in found.items()]


@pytest.mark.parametrize("version", SUPPORTED)
def test_kubernetes_own_kinds_are_valid(version, distinct):
    checked = set()
    for each, names in distinct:
        if each["apiVersion"] in OTHERS:
            continue
        try:
            kubernetes_validate.validate(each, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            pytest.fail(
                f"{each['kind']} in {names}: {'.'.join(map(str, error.path))}: {error.message}"
            )
        checked.add(each["kind"])
    assert {
        "StatefulSet",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "PodDisruptionBudget",
    } <= checked


def test_other_kinds_are_valid(definitions, distinct):
    schemas = {}
    for file in definitions:
        definition = yaml.safe_load(file.read_text())["spec"]
        for version in definition["versions"]:
            name = f"{definition['group']}/{version['name']}", definition["names"]["kind"]
            schemas[name] = strict(version["schema"]["openAPIV3Schema"])
    checked = set()
    for each, names in distinct:
        if each["apiVersion"] not in OTHERS:
            continue
        schema = schemas[each["apiVersion"], each["kind"]]
        for error in jsonschema.Draft202012Validator(schema).iter_errors(each):
            pytest.fail(f"{each['kind']} in {names}: {error.json_path}: {error.message}")
        checked.add(each["kind"])
    assert checked == {"ScaledObject", "TriggerAuthentication", "PodMonitor", "PrometheusRule"}


def test_words_are_those_that_kubernetes_knows(everything):
    seen = set()
    for documents in everything.values():
        for path, value in specs(documents):
            name = path[-1] if path else ""
            if name in ENUMS and isinstance(value, str):
                assert value in ENUMS[name], path
                seen.add(name)
    assert seen == set(ENUMS)


def test_the_server_takes_all_of_them(node, kubectl, definitions, distinct):
    """As above and more, by Kubernetes itself, where pods have to be restricted."""
    for file in definitions:
        kubectl("apply", "--server-side", "-f", file)
    label = "pod-security.kubernetes.io/warn"
    namespace = {"name": "manifests", "labels": {label: "restricted"}}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": namespace}
    kubectl("apply", "-f", "-", stdin=json.dumps(namespace))
    try:
        texts = yaml.safe_dump_all(each for each, _ in distinct)
        asked = ("apply", "--namespace=manifests", "--dry-run=server", "--validate=strict")
        done = kubectl(*asked, "-f", "-", stdin=texts, check=False)
        # A pod that is not restricted is a warning for a StatefulSet, and an error only for its pods.
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("(server dry run)") == len(distinct)
    finally:
        kubectl("delete", "namespace", "manifests", "--wait=false")


def test_pods_are_restricted(everything):
    """The Pod Security Standard "restricted"; the server is asked above."""
    for name, documents in everything.items():
        pod = the("StatefulSet", documents)["spec"]["template"]["spec"]
        context = pod["securityContext"]
        assert context["runAsNonRoot"], name
        assert context["runAsUser"] == context["runAsGroup"] == 10001
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all({"emptyDir", "configMap", "secret"} & each.keys() for each in pod["volumes"])
        for one in containers(documents).values():
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert "memory" in one["resources"]["limits"]


def test_folders_that_are_written_to_are_bounded(everything):
    for documents in everything.values():
        for volume in the("StatefulSet", documents)["spec"]["template"]["spec"]["volumes"]:
            if "emptyDir" in volume:
                assert volume["emptyDir"]["sizeLimit"]


def test_changed_filters_reach_the_pods(everything):
    for documents in everything.values():
        for one in containers(documents).values():
            assert not any("subPath" in each for each in one["volumeMounts"])
    names = {each["metadata"]["name"] for each in everything["kustomize"]}
    assert "fluent-bridge-filters" in names  # without a hash: the pods keep running, and load it
