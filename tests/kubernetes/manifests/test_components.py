"""Components of k8s/ do together what each does, and a second pipeline does not disturb the first."""

import itertools
import json
from pathlib import Path

import pytest
from kustomize import COMPONENTS, containers, sidecar_settings, specs, the, variables, walk


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
