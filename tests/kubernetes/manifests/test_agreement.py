"""Names, variables and numbers of k8s/ fit together, and with the settings, the configurations and the version of this project."""

import os
import re
import subprocess

import pytest
import yaml
from kustomize import (
    EXAMPLE,
    K8S,
    ROOT,
    containers,
    cpus,
    environment,
    sidecar_settings,
    specs,
    the,
    variables,
)

from bridge import cli
from bridge.settings import Settings, catalogue
from bridge.version import __version__


def default(setting):
    return float(re.match(r"[\d.]+", str(catalogue(Settings)[setting].default))[0])


def test_the_sidecar_takes_its_environment(everything):
    for name, documents in everything.items():
        sidecar = containers(documents)["sidecar"]
        settings = sidecar_settings(sidecar, EXAMPLE / "fluent-bridge.yaml")
        mounts = {each["mountPath"] for each in sidecar["volumeMounts"]}
        assert str(settings.filters.path) in mounts, name
        assert settings.filters.payload == "json"
        tap = "local" if {"debug", "dev"} & {*name.split("+")} else "nobody"
        assert settings.admin.tap == tap, name
        assert settings.workers.count == cpus(sidecar)


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
        worker = settings.workers.memory_limit / 2**20 + 15  # mapped files do not count there
        in_flight = settings.delivery.bytes_in_flight / 2**20
        # README.md, "Running it"; twice the workers while filters are loaded anew.
        assert limit >= 75 + in_flight + 2 * cpus(sidecar) * worker, name
        # At other times there is room for what one takes before it is seen and ended.
        assert limit >= 75 + in_flight + cpus(sidecar) * worker + 200, name


def test_the_number_of_workers_is_that_of_the_cpus(everything):
    for documents in everything.values():
        sidecar = containers(documents)["sidecar"]
        (count,) = (one for one in sidecar["env"] if one["name"] == "FLUENT_BRIDGE_WORKERS__COUNT")
        assert count["valueFrom"]["resourceFieldRef"] == {
            "containerName": "sidecar",
            "resource": "requests.cpu",
            "divisor": "1",
        }
        given = environment(sidecar)
        assert {given[f"{one}_NUM_THREADS"] for one in ("OMP", "OPENBLAS", "MKL")} == {"1"}


def test_more_workers_are_as_many_as_the_document_says(in_words):
    assert cpus(containers(in_words["more workers"])["sidecar"]) == 7


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
        # By number: a native sidecar's name of a port is not found by all that would look for it.
        assert {each["targetPort"] for each in the("Service", documents)["spec"]["ports"]} == {
            *ports.values()
        }
        for each in documents:
            if each["kind"] == "NetworkPolicy":
                (scrape,) = each["spec"]["ingress"]
                assert {one["port"] for one in scrape["ports"]} == {*ports.values()}


def test_a_cluster_autoscaler_may_remove_nodes(everything):
    for name, documents in everything.items():
        template = the("StatefulSet", documents)["spec"]["template"]
        safe = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
        folders = [one["name"] for one in template["spec"]["volumes"] if "emptyDir" in one]
        assert template["metadata"]["annotations"][safe] == ",".join(folders), name


def test_pods_go_to_nodes_that_run_their_images(build):
    lock = (ROOT / "images" / "fluentd" / "Gemfile.lock").read_text()
    platforms = re.findall(r"^PLATFORMS\n  (\w+)-linux", lock, re.MULTILINE)
    pod = the("StatefulSet", build(K8S / "base"))["spec"]["template"]["spec"]
    node = {"x86_64": "amd64", "aarch64": "arm64"}
    assert [pod["nodeSelector"]["kubernetes.io/arch"]] == [node[one] for one in platforms]


def uncommented(text):
    """The kustomization with all that it has in comments."""

    def block(match):
        return re.sub("^# ", "", match[0], flags=re.MULTILINE)

    return re.sub(r"^# [a-z]+:.*\n(?:#   .*\n)*", block, text, flags=re.MULTILINE)


def test_what_the_example_has_in_comments_works(example):
    documents = example(uncommented)
    spec = the("StatefulSet", documents)["spec"]
    assert the("StatefulSet", documents)["metadata"]["namespace"] == "ads"
    assert spec["replicas"] == 4
    assert spec["template"]["spec"]["priorityClassName"] == "pipelines"
    assert variables(documents)["KAFKA_CA_FILE"]
    images = [one["image"] for one in containers(documents).values()]
    assert all(one.startswith("registry.example.com/fluent-bridge-") for one in images)
    assert the("ServiceAccount", documents)["imagePullSecrets"] == [{"name": "registry"}]


def test_the_example_has_as_many_pods_as_what_it_is_made_of(example, build):
    documents = example(lambda text: text.replace("/k8s/base", "/k8s/overlays/production", 1))
    assert the("StatefulSet", documents)["spec"]["replicas"] == 3
    assert the("StatefulSet", build(EXAMPLE))["spec"]["replicas"] == 2


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


@pytest.mark.parametrize("name", ["fluent-bridge-sidecar", "filters-of-ads"])
def test_ci_of_the_example_takes_the_image_of_the_pod(example, tmp_path, name):
    documents = example(
        lambda text: uncommented(text).replace(".com/fluent-bridge-sidecar", f".com/{name}")
    )
    environ = {**os.environ, "DOCKER": "echo", "MANIFESTS": str(tmp_path / "manifests.yaml")}
    environ.pop("SIDECAR_IMAGE", None)
    done = subprocess.run([example.folder / "ci.sh"], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    image = containers(documents)["sidecar"]["image"]
    assert f"/{name}" in image
    assert [line.split()[5] for line in done.stdout.splitlines()] == [image, image]
    assert list(yaml.safe_load_all((tmp_path / "manifests.yaml").read_text())) == documents
