"""Components of k8s/ do together what each does, and a second pipeline does not disturb the first."""

import itertools
import json
import re
from pathlib import Path

import pytest
import yaml
from kustomize import (
    COMPONENTS,
    EXAMPLE,
    K8S,
    NOT_TOGETHER,
    blocks,
    containers,
    head,
    sidecar_settings,
    specs,
    the,
    variables,
    walk,
)


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


TOGETHER = [pair for pair in itertools.combinations(COMPONENTS, 2) if pair not in NOT_TOGETHER]


@pytest.mark.parametrize("pair", TOGETHER, ids="+".join)
def test_two_components_do_what_each_does(pair, with_components):
    base, together = leaves(with_components()), leaves(with_components(*pair))
    alone = [leaves(with_components(one)) for one in pair]
    for each in alone:
        assert each - base <= together, "what one adds, the other takes away"
        assert not (base - each) & together, "what one takes away, the other brings back"
    assert together <= alone[0] | alone[1], "there is what neither has"
    reverse = with_components(*reversed(pair))
    assert normal(reverse) == normal(with_components(*pair)), "the order matters"


@pytest.mark.parametrize("pair", sorted(NOT_TOGETHER), ids="+".join)
def test_components_that_do_not_go_together_say_so(pair):
    for one, other in (pair, reversed(pair)):
        assert re.search(
            rf"\b(not|nor|no)\b[^.]*\b{other}\b", head(K8S / "components" / one), re.IGNORECASE
        )


def test_keda_scales_by_lag_and_by_the_cpus_of_both_containers(with_components, in_words):
    spec = the("ScaledObject", with_components("autoscale-keda"))["spec"]
    assert [one["type"] for one in spec["triggers"]] == ["kafka", "cpu", "cpu"]
    assert {one["metadata"].get("containerName") for one in spec["triggers"][1:]} == {
        *containers(with_components("autoscale-keda"))
    }
    assert spec["minReplicaCount"] == 2
    kafka = the("ScaledObject", in_words["Kafka with TLS"])["spec"]["triggers"][0]
    assert {"tls", "sasl"} <= kafka["metadata"].keys()
    asked = the("TriggerAuthentication", in_words["Kafka with TLS"])
    assert kafka["authenticationRef"]["name"] == asked["metadata"]["name"]
    parameters = {one["parameter"]: one for one in asked["spec"]["secretTargetRef"]}
    assert parameters.keys() == {"username", "password", "ca"}
    volumes = the("StatefulSet", in_words["Kafka with TLS"])["spec"]["template"]["spec"]["volumes"]
    assert parameters["ca"]["name"] in {one.get("secret", {}).get("secretName") for one in volumes}


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


# What kustomize changes of labels in a second pipeline, told in two documents.
SECOND = [
    one
    for file in (K8S / "README.md", EXAMPLE / "README.md")
    for one in blocks(file)
    if "namePrefix" in one
]


def selectors(documents):
    """What finds pods of this project, but for a PodMonitor: one is for all pipelines."""
    return [
        value
        for each in documents
        if each["kind"] != "PodMonitor"
        for path, value in walk(each)
        if path[-1:] in {("matchLabels",), ("selector",)} and "app.kubernetes.io/name" in value
    ]


@pytest.mark.parametrize("own", SECOND, ids=["k8s", "example"])
@pytest.mark.parametrize(
    ("on", "components", "count"),
    [("base", ["network-policy", "forward"], 7), ("overlays/production", ["autoscale-keda"], 7)],
)
def test_two_pipelines_in_a_namespace_are_strangers(with_components, own, on, components, count):
    second = {name: yaml.safe_dump(each) for name, each in own.items()}
    builds = [with_components(*components, on=on, **more) for more in ({}, second)]
    for one, other in (builds, reversed(builds)):
        template = the("StatefulSet", other)["spec"]["template"]
        found = selectors(one)
        assert len(found) == count
        for each in found:
            assert not each.items() <= template["metadata"]["labels"].items()
            assert (
                each.items()
                <= the("StatefulSet", one)["spec"]["template"]["metadata"]["labels"].items()
            )
        names = {(each["kind"], each["metadata"]["name"]) for each in other}
        targets = [value["name"] for path, value in specs(one) if path[-1:] == ("scaleTargetRef",)]
        assert not {("StatefulSet", name) for name in targets} & names


@pytest.mark.parametrize("own", SECOND, ids=["k8s", "example"])
def test_names_of_a_second_pipeline_are_its_own(with_components, own):
    more = {name: yaml.safe_dump(each) for name, each in own.items()}
    secret = "[{name: fluent-bridge-kafka, literals: [KAFKA_BROKERS=kafka:9092]}]"
    documents = with_components("autoscale-keda", "network-policy", secretGenerator=secret, **more)
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


def test_a_second_pipeline_has_no_monitoring_of_its_own(build, in_words):
    def watching(documents):
        return sorted(
            one["kind"]
            for one in documents
            if one["apiVersion"].startswith("monitoring.coreos.com")
            or "grafana_dashboard" in one["metadata"].get("labels", {})
        )

    first = build(K8S / "overlays" / "production")
    assert watching(first) == ["ConfigMap", "PodMonitor", "PrometheusRule"]
    assert watching(in_words["a second pipeline"]) == []
