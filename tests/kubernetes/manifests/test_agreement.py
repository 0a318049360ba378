"""Names, variables and numbers of k8s/ fit together, and with the settings, the configurations and the version of this project."""

import re

import pytest
from kustomize import EXAMPLE, K8S, ROOT, containers, sidecar_settings, specs, the, variables

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
