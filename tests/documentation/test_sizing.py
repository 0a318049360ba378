"""What docs/kubernetes.md says about sizes is what the measured costs in README.md give."""

import argparse
import re
from pathlib import Path

import pytest
import yaml

from benchmarks import sizing
from benchmarks.sizing import Costs, Shape

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
COSTS = sizing.measured(README)


@pytest.mark.parametrize("table", [sizing.a_pod, sizing.rates, sizing.pods])
def test_tables_are_those_of_the_script(table):
    assert f"\n{table(COSTS)}\n" in PAGE, f"put this there:\n{table(COSTS)}"


def test_a_pod_does_less_than_was_measured():
    """The benchmark had one worker of Fluentd, two of the sidecar, and Kafka on the same cores."""
    [rate] = re.findall(rf"^\| {sizing.ROAD} \| (\d+)k \|", README, re.MULTILINE)
    computed = Shape(1, 2).rate(COSTS)
    assert computed < int(rate) * 1000 < computed / sizing.HEADROOM
    assert f"{rate}k events/s with 1 + 2" in PAGE


def test_memory_is_that_of_the_base():
    pod = yaml.safe_load((ROOT / "k8s/base/statefulset.yaml").read_text())["spec"]["template"][
        "spec"
    ]
    environment = {one["name"]: one.get("value") for one in pod["initContainers"][0]["env"]}
    assert environment["FLUENT_BRIDGE_WORKERS__MEMORY_LIMIT"] == f"{sizing.LIMIT_MIB}MiB"
    assert environment["FLUENT_BRIDGE_DELIVERY__BYTES_IN_FLIGHT"] == f"{sizing.IN_FLIGHT_MIB}MiB"
    assert f"Memory: about {sizing.SIDECAR_MIB} MiB," in README


def requests(file):
    """Return what a patch of the base has requested for the sidecar and for Fluentd."""
    text = yaml.safe_load((ROOT / "k8s" / file).read_text())
    if "patches" in text:
        text = yaml.safe_load(text["patches"][0]["patch"])
    pod = text["spec"]["template"]["spec"]
    (sidecar,), (fluentd,) = pod["initContainers"], pod["containers"]
    return [one["resources"]["requests"] for one in (sidecar, fluentd)]


def test_shapes_are_those_of_the_manifests():
    base = requests("base/statefulset.yaml")
    for file, shape in zip(
        ("overlays/production/statefulset.yaml", "components/multi-worker/kustomization.yaml"),
        sizing.SHAPES,
        strict=False,
    ):
        sidecar, fluentd = (old | new for old, new in zip(base, requests(file), strict=True))
        assert (int(fluentd["cpu"]), int(sidecar["cpu"])) == (shape.fluentd, shape.sidecar), file
        memory = [int(one["memory"].removesuffix("Mi")) for one in (sidecar, fluentd)]
        assert 0.85 * sum(memory) <= shape.memory <= sum(memory), file


def test_the_rollout_is_that_of_the_manifest():
    base = yaml.safe_load((ROOT / "k8s" / "base" / "statefulset.yaml").read_text())
    wait = base["spec"]["minReadySeconds"]
    assert sizing.rollout(1) == sizing.rollout(1, wait=wait)
    grace = base["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert f"`minReadySeconds`, {wait} s" in PAGE
    assert f"{grace} s of grace" in PAGE


def test_timeouts_are_those_of_the_base():
    base = yaml.safe_load((ROOT / "k8s" / "base" / "kustomization.yaml").read_text())
    [literals] = [
        one["literals"] for one in base["configMapGenerator"] if one["name"] == "fluentd-env"
    ]
    environment = dict(literal.split("=", 1) for literal in literals)
    assert f"`SESSION_TIMEOUT`, {environment['SESSION_TIMEOUT']} s." in PAGE
    assert f"`TRANSACTION_TIMEOUT`, {environment['TRANSACTION_TIMEOUT']} s," in PAGE


@pytest.mark.parametrize(
    ("shape", "costs", "rate"),
    [
        (Shape(1, 1), Costs(4, 5, 1), 70_000),  # one thing after the other: 10 µs
        (Shape(1, 5), Costs(4, 5, 1), 700_000 / 6),  # over five workers: 4 + 1 + 1
        (Shape(2, 2), Costs(4, 5, 1), 140_000),
        (Shape(2, 1), Costs(4, 5, 1), 1_400_000 / 15),  # two consumers wait for the same worker
    ],
)
def test_what_a_pod_does(shape, costs, rate):
    assert shape.rate(costs) == pytest.approx(rate)


def test_there_are_never_fewer_pods_than_two():
    assert Shape(1, 1).pods(1, COSTS) == 2
    assert Shape(1, 1).pods(70_001 * 3, Costs(4, 5, 1)) == 4


@pytest.mark.parametrize("text", ["250000", "250k", "250K", "0.25M", "2.5e5"])
def test_a_rate_is_written_as_one_likes(text):
    assert sizing.events(text) == 250_000


@pytest.mark.parametrize("text", ["", "k", "fast", "-1k", "0", "nan", "inf", "1G"])
def test_what_is_no_rate_is_told(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is no rate"):
        sizing.events(text)


def test_alerts_are_those_of_the_rules():
    rules = yaml.safe_load((ROOT / "k8s" / "components" / "monitoring" / "rules.yaml").read_text())
    names = {rule["alert"] for group in rules["spec"]["groups"] for rule in group["rules"]}
    assert set(re.findall(r"`(FluentBridge\w+)`", PAGE)) == names


def test_a_readme_without_the_row_is_told():
    with pytest.raises(ValueError, match="no row"):
        sizing.measured("nothing")
