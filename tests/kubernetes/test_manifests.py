"""What kustomize makes of k8s/: every combination builds, each Kubernetes from 1.29 on takes it, and its numbers and names fit together."""

import functools
import itertools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from bridge import cli
from bridge.settings import Settings, catalogue
from bridge.version import __version__

ROOT = Path(__file__).parents[2]
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
def build(kubectl):
    """Return a function that gives what kustomize makes of a folder."""

    @functools.cache
    def run(folder):
        return list(yaml.safe_load_all(kubectl("kustomize", folder)))

    return run


@pytest.fixture(scope="session")
def with_components(kubectl, tmp_path_factory):
    """Return a function that builds the base with components, as somebody's own kustomization has them."""

    @functools.cache
    def run(*components, **more):
        folder = tmp_path_factory.mktemp("kustomization")
        own = {
            "resources": [os.path.relpath(K8S / "base", folder)],
            "components": [os.path.relpath(K8S / "components" / one, folder) for one in components],
            **{name: yaml.safe_load(text) for name, text in more.items()},
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(own))
        return list(yaml.safe_load_all(kubectl("kustomize", folder)))

    return run


@pytest.fixture(scope="session")
def everything(build, with_components):
    """Every build there is, by its name."""
    made = {"+".join(("base", *one)): with_components(*one) for one in COMBINATIONS}
    return made | {folder.name: build(folder) for folder in OVERLAYS}


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


def default(setting):
    return float(re.match(r"[\d.]+", str(catalogue(Settings)[setting].default))[0])


# ------------------------------------------------------------------------------------------ what Kubernetes takes


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


# ------------------------------------------------------------------------------------------ components together


def normal(value):
    """The same for lists whose entries have names, in whatever order."""
    if isinstance(value, dict):
        return {name: normal(each) for name, each in value.items()}
    if isinstance(value, list):
        return sorted(
            (normal(each) for each in value), key=lambda each: json.dumps(each, sort_keys=True)
        )
    return value


def leaves(documents):
    """Every value that is no list and no mapping, with its place; entries of lists by their names."""

    def flat(value, path):
        if isinstance(value, dict):
            for name, each in value.items():
                yield from flat(each, (*path, name))
        elif isinstance(value, list):
            for each in value:
                label = (
                    next(
                        (
                            each[key]
                            for key in ("name", "topologyKey", "mountPath", "containerPort")
                            if key in each
                        ),
                        "",
                    )
                    if isinstance(each, dict)
                    else each
                )
                yield from flat(each, (*path, f"[{label}]"))
        else:
            yield path, value

    return {
        pair for each in documents for pair in flat(each, (each["kind"], each["metadata"]["name"]))
    }


@pytest.mark.parametrize("pair", list(itertools.combinations(COMPONENTS, 2)), ids="+".join)
def test_two_components_do_what_each_does(pair, with_components):
    base, together = leaves(with_components()), leaves(with_components(*pair))
    alone = [leaves(with_components(one)) for one in pair]
    for each in alone:
        assert each - base <= together, "what one adds, the other takes away"
        assert not (base - each) & together, "what one takes away, the other brings back"
    assert together <= alone[0] | alone[1], "there is what neither has"
    reverse = with_components(*reversed(pair))
    assert normal(reverse) == normal(with_components(*pair)), "the order matters"


@pytest.mark.parametrize("name", ["autoscale-hpa", "autoscale-keda"])
def test_an_autoscaler_is_alone_in_charge_of_the_replicas(name, with_components):
    assert "replicas" in the("StatefulSet", with_components())["spec"]
    documents = with_components(name)
    assert "replicas" not in the("StatefulSet", documents)["spec"]
    assert "GROUP_INSTANCE_ID" not in variables(documents)  # who is scaled away leaves the group


def test_forward_has_its_buffers_on_a_volume_and_its_ports_on_loopback(with_components):
    documents = with_components("forward")
    spec = the("StatefulSet", documents)["spec"]
    (claim,) = spec["volumeClaimTemplates"]
    fluentd, sidecar = (containers(documents)[name] for name in ("fluentd", "sidecar"))
    settings = sidecar_settings(sidecar)
    (mount,) = (
        each["mountPath"]
        for each in fluentd["volumeMounts"]
        if each["name"] == claim["metadata"]["name"]
    )
    assert variables(documents)["BUFFER_DIR"] == mount
    assert settings.delivery.window_file.parent == Path(mount)
    assert {"name": claim["metadata"]["name"], "mountPath": mount} in sidecar["volumeMounts"]
    assert settings.listen.enabled
    assert settings.listen.host == settings.downstream.host == "127.0.0.1"
    assert not settings.rpc.enabled
    assert not {"RETURN_BIND", "SIDECAR_HOST"} & variables(documents).keys()
    # Three buffers of 1 GiB each for every worker that a component of this project starts.
    assert claim["spec"]["resources"]["requests"]["storage"] == "8Gi"
    assert int(variables(with_components("forward", "multi-worker"))["FLUENTD_WORKERS"]) * 3 <= 8


# ------------------------------------------------------------------------------------------ names and numbers


def sidecar_settings(container, file=None):
    """The settings that the sidecar in the pod has; all of its variables have to be settings."""
    environ = {
        one["name"]: one.get("value", "1")  # the number of CPUs
        for one in container["env"]
        if one["name"] != "FLUENT_BRIDGE_CONFIG"
    }
    return Settings.load([] if file is None else ["--config", str(file)], environ)


def test_the_sidecar_takes_its_environment(everything):
    for name, documents in everything.items():
        sidecar = containers(documents)["sidecar"]
        settings = sidecar_settings(sidecar, EXAMPLE / "fluent-bridge.yaml")
        mounts = {each["mountPath"] for each in sidecar["volumeMounts"]}
        assert str(settings.filters.path) in mounts, name
        assert settings.filters.payload == "json"
        tap = "local" if {"debug", "dev"} & {*name.split("+")} else "nobody"
        assert settings.admin.tap == tap, name
        assert settings.workers.count == 1


def test_an_empty_settings_file_is_fine(build, tmp_path):
    (data,) = (
        each["data"]
        for each in build(K8S / "base")
        if each["kind"] == "ConfigMap"
        and each["metadata"]["name"].startswith("fluent-bridge-settings-")
    )
    ((name, text),) = data.items()
    (tmp_path / name).write_text(text)
    assert Settings.load(["--config", str(tmp_path / name)], {}).show()


def known_variables(road):
    heads = [
        (ROOT / "fluent-conf" / f"{name}.conf").read_text().split("\n<")[0]
        for name in ("pod", road)
    ]
    lines = re.findall(r"^#   ([A-Z_]+(?:, [A-Z_]+)*) +\S", "\n".join(heads), re.MULTILINE)
    return {name for line in lines for name in line.split(", ")}


def test_fluentds_variables_are_those_of_its_configuration(everything):
    others = {"POD_NAME", "POD_NAMESPACE"}
    # Of the other road: they have no effect in this one.
    exactly_once = {
        "TRANSACTIONAL_ID",
        "GROUP_INSTANCE_ID",
        "TRANSACTION_TIMEOUT",
        "SIDECAR_TIMEOUT",
    }
    for name, documents in everything.items():
        given = variables(documents)
        unknown = given.keys() - known_variables(given["ROAD"]) - others
        assert unknown <= (exactly_once if given["ROAD"] == "forward" else set()), name


def test_variables_are_made_of_those_before_them(everything):
    for documents in everything.values():
        (source,) = containers(documents)["fluentd"]["envFrom"]
        known = {
            key
            for each in documents
            if each["metadata"]["name"] == source["configMapRef"]["name"]
            for key in each["data"]
        }
        for one in containers(documents)["fluentd"]["env"]:
            assert set(re.findall(r"\$\((\w+)\)", one.get("value", ""))) <= known, one
            known.add(one["name"])


def test_no_two_pods_of_a_kafka_share_their_ids(everything):
    """Who has an id that another has takes over what that one does: see the heads of fluent-conf/*.conf."""
    for documents in everything.values():
        for name in {"TRANSACTIONAL_ID", "GROUP_INSTANCE_ID"} & variables(documents).keys():
            assert variables(documents)[name] == "$(KAFKA_GROUP).$(POD_NAMESPACE).$(POD_NAME)"


def test_deadlines_fit_into_each_other(everything):
    for name, documents in everything.items():
        pod = the("StatefulSet", documents)["spec"]["template"]["spec"]
        given, sidecar = variables(documents), sidecar_settings(containers(documents)["sidecar"])
        transaction, timeout = float(given["TRANSACTION_TIMEOUT"]), float(given["SIDECAR_TIMEOUT"])
        assert 3 * sidecar.workers.deadline < timeout < transaction, name
        assert pod["terminationGracePeriodSeconds"] > transaction + sidecar.shutdown.grace, name
        probe = containers(documents)["sidecar"]["startupProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] > sidecar.workers.start_timeout, (
            name
        )


def test_memory_is_enough_for_what_the_settings_allow(everything):
    for name, documents in everything.items():
        sidecar = containers(documents)["sidecar"]
        resources, settings = sidecar["resources"], sidecar_settings(sidecar)
        assert resources["limits"]["memory"] == resources["requests"]["memory"]
        limit = int(re.fullmatch(r"(\d+)Mi", resources["limits"]["memory"])[1])
        workers = {"50m": 1, "200m": 1, "1": 1, "2": 2}[resources["requests"]["cpu"]]
        worker = settings.workers.memory_limit / 2**20 + 15  # programs and libraries are not data
        in_flight = settings.delivery.bytes_in_flight / 2**20
        # README.md, "Running it"; twice the workers while filters are loaded anew.
        assert limit >= 75 + in_flight + 2 * workers * worker, name


def test_the_number_of_workers_is_that_of_the_cpus(everything):
    for documents in everything.values():
        sidecar = containers(documents)["sidecar"]
        (count,) = (one for one in sidecar["env"] if one["name"] == "FLUENT_BRIDGE_WORKERS__COUNT")
        assert count["valueFrom"]["resourceFieldRef"] == {
            "containerName": "sidecar",
            "resource": "requests.cpu",
            "divisor": "1",
        }
        assert "cpu" in sidecar["resources"]["requests"]


@pytest.fixture(scope="session")
def documented():
    """What a kustomization's comments ask its user for, as in `Secret fluent-bridge-kafka`."""
    texts = [file.read_text() for file in K8S.rglob("kustomization.yaml")]
    return {
        pair for text in texts for pair in re.findall(r"(ConfigMap|Secret) (fluent[a-z-]+)", text)
    }


NAMED = {
    "configMap": ("ConfigMap", "name"),
    "configMapRef": ("ConfigMap", "name"),
    "configMapKeyRef": ("ConfigMap", "name"),
    "secret": ("Secret", "secretName"),
    "secretKeyRef": ("Secret", "name"),
    "secretTargetRef": ("Secret", "name"),
    "scaleTargetRef": ("StatefulSet", "name"),
    "authenticationRef": ("TriggerAuthentication", "name"),
}


def test_every_name_is_that_of_something(everything, documented):
    for build_name, documents in everything.items():
        there = {(each["kind"], each["metadata"]["name"]) for each in documents}
        spec = the("StatefulSet", documents)["spec"]
        assert ("Service", spec["serviceName"]) in there
        assert ("ServiceAccount", spec["template"]["spec"]["serviceAccountName"]) in there
        for path, value in specs(documents):
            kind, key = NAMED.get(path[-1] if path else "", (None, None))
            if kind is None or not isinstance(value, dict):
                continue
            assert (kind, value[key]) in there | documented, f"{build_name}: {'.'.join(path)}"


def test_the_example_has_all_that_its_pod_needs(build):
    there = {each["metadata"]["name"] for each in build(EXAMPLE)}
    for path, value in specs(build(EXAMPLE)):
        kind, key = NAMED.get(path[-1] if path else "", (None, None))
        if kind is not None and isinstance(value, dict):
            assert value[key] in there
    literals = variables(build(EXAMPLE))
    assert literals["INPUT_TOPICS"] == "ad.click,ad.view"  # merged over the base's
    assert literals["SESSION_TIMEOUT"]


def test_probes_and_services_find_their_ports(everything):
    for documents in everything.values():
        ports = {
            port["name"]: port["containerPort"]
            for one in containers(documents).values()
            for port in one["ports"]
        }
        assert ports == {"admin": int(default("admin.port")), "metrics": 24231}
        for one in containers(documents).values():
            assert {"readinessProbe", "livenessProbe"} <= one.keys()
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if probe in one:
                    assert one[probe]["httpGet"]["port"] in {port["name"] for port in one["ports"]}
        named = [
            value
            for path, value in specs(documents)
            if path[-1:] in {("targetPort",), ("port",)} and isinstance(value, str)
        ]
        assert set(named) <= set(ports)


def test_a_second_pipeline_in_the_namespace_is_a_stranger_to_the_first(with_components):
    own = {
        "namePrefix": "billing-",
        "labels": "[{pairs: {app.kubernetes.io/instance: billing}, includeSelectors: true}]",
        "secretGenerator": "[{name: fluent-bridge-kafka, literals: [KAFKA_BROKERS=kafka:9092]}]",
    }
    documents = with_components("autoscale-keda", "network-policy", "forward", **own)
    selectors = [
        value
        for each in documents
        if each["kind"] in {"StatefulSet", "Service", "PodDisruptionBudget", "NetworkPolicy"}
        for path, value in walk(each)
        if path[-1:] in {("matchLabels",), ("selector",)} and "app.kubernetes.io/name" in value
    ]
    assert len(selectors) == 7
    assert all(one["app.kubernetes.io/instance"] == "billing" for one in selectors)
    there = {(each["kind"], each["metadata"]["name"]) for each in documents}
    assert all(name.startswith("billing-") for _, name in there)
    (target,) = (
        value["name"] for path, value in specs(documents) if path[-1:] == ("scaleTargetRef",)
    )
    assert ("StatefulSet", target) in there
    secrets = [
        value["name"]
        for path, value in specs(documents)
        if path[-1:] in {("secretTargetRef",), ("secretKeyRef",)} and isinstance(value, dict)
    ]
    assert len(secrets) == 6
    assert all(("Secret", name) in there for name in secrets)


# ------------------------------------------------------------------------------------------ safety


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


# ------------------------------------------------------------------------------------------ versions, CI


def test_images_have_the_version_of_this_project(everything):
    for documents in everything.values():
        images = {one["image"] for one in containers(documents).values()}
        assert images == {f"fluent-bridge-{name}:{__version__}" for name in ("sidecar", "fluentd")}


def test_no_other_version_is_written_anywhere():
    files = [
        file
        for folder in (K8S, EXAMPLE)
        for file in folder.rglob("*")
        if file.suffix in {".yaml", ".sh", ".md"}
    ]
    found = {}
    for file in files:
        for version in re.findall(
            r"(?:newTag: |ref=v|fluent-bridge-\w+:)(\d[\w.]*)", file.read_text()
        ):
            found.setdefault(version, set()).add(file.name)
    assert set(found) == {__version__}
    tags = [file for file in files if re.search(r"^[^#]*newTag:", file.read_text(), re.MULTILINE)]
    assert tags == [K8S / "base" / "kustomization.yaml"]


def test_ci_of_the_example_asks_for_what_the_command_does(monkeypatch):
    commands = re.findall(r"^in_sidecar (\w.*)$", (EXAMPLE / "ci.sh").read_text(), re.MULTILINE)
    assert [one.split()[0] for one in commands] == ["check", "test"]
    monkeypatch.chdir(EXAMPLE)
    for one in commands:
        assert cli.main(one.split()) == 0
