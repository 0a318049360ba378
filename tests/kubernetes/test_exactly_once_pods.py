"""Pods of the example on a real node, between topics of a real Kafka: each id once, whatever happens to them.

One deployment for all faults. Each fault has its own ids, and they are all looked at again with each: what comes
late, or once more, is found.
"""

import json
import random
import time

import pytest
from flow import Flow
from ids import ENRICH, Topics, event
from kubernetes_node import Node
from pods import NAME, SELECTOR, Pods, await_until, statuses
from prometheus_server import PrometheusServer

pytestmark = [pytest.mark.kubernetes, pytest.mark.kafka, pytest.mark.timeout(600)]

EVENTS = 200_000
PARTITIONS = 4
REPLICAS = 2
READY_WITHIN = 60  # seconds from `kubectl apply -k`, with the images on the node

# What the filter does with a field named "take": data is what workers.memory_limit counts, what is shared only the
# kernel sees. Ids that end in 13 are refused anyway, so their dead letters are expected.
GREEDY = """
import mmap

HELD = []

def take(what):
    if what == "data":
        bytearray(8 << 30)
    shared = mmap.mmap(-1, 8 << 30)
    while True:
        shared.write(bytes(1 << 20))
""" + ENRICH.replace(
    "    if record", '    if "take" in record:\n        take(record["take"])\n    if record', 1
)
SECOND_VERSION = ENRICH.replace("    return record", '    record["version"] = 2\n    return record')
BROKEN = ENRICH.replace("def enrich(", "def enrich(:")


class Road:
    """What the tests share: the pods, and events that flow through them."""

    def __init__(self, pods, flow, folder):
        self.pods = pods
        self.flow = flow
        self.folder = folder  # a function that makes one
        self.used = 0

    def ids(self):
        """Return ids that no test has had."""
        self.used += EVENTS
        return range(self.used - EVENTS, self.used)

    def any(self):
        return random.choice(sorted(self.pods.all()))


@pytest.fixture(scope="module")
def road(kubectl, images, broker, tmp_path_factory):
    topics = Topics(broker, f"pods-{random.randrange(10**9)}", PARTITIONS)
    pods = Pods(kubectl, tmp_path_factory.mktemp("repository"), topics.group, topics)
    flow = Flow(topics, PARTITIONS, (len(FAULTS) + 2) * EVENTS)
    try:
        pods.create()
        began = time.monotonic()
        pods.apply()
        pods.wait_ready(REPLICAS)
        one = Road(pods, flow, lambda: tmp_path_factory.mktemp("fault"))
        one.seconds_to_ready = time.monotonic() - began
        yield one
    finally:
        flow.close()
        pods.remove()
        topics.delete()


def nothing(road):
    assert road.seconds_to_ready < READY_WITHIN
    assert set(road.pods.restarts().values()) == {0}


def restart_all_pods_in_turn(road):
    before = road.pods.uids()
    road.pods.rollout("restart")
    assert len(road.pods.wait_ready(REPLICAS)) == REPLICAS
    assert not before & road.pods.uids()


def change_an_image_and_roll_back(road):
    def images():
        pods = road.pods.all().values()
        return {statuses(pod)["sidecar"]["image"].rpartition(":")[2] for pod in pods}

    (tag,) = images()
    name = "docker.io/library/fluent-bridge-sidecar"
    # Another name of the same image: how pods are replaced does not depend on what is new in it.
    Node.tag(f"{name}:{tag}", f"{name}:next")
    road.pods.kubectl("set", "image", f"statefulset/{NAME}", "sidecar=fluent-bridge-sidecar:next")
    road.pods.wait_rollout()
    specs = [pod["spec"]["initContainers"][0]["image"] for pod in road.pods.all().values()]
    assert set(specs) == {"fluent-bridge-sidecar:next"}
    road.pods.rollout("undo")
    specs = [pod["spec"]["initContainers"][0]["image"] for pod in road.pods.all().values()]
    assert set(specs) == {f"fluent-bridge-sidecar:{tag}"}


def roll_out_what_does_not_load_and_roll_back(road):
    before = road.pods.all()
    road.pods.kubectl(
        "set", "env", f"statefulset/{NAME}", "-c", "sidecar", "FLUENT_BRIDGE_FILTERS__PATH=/nothing"
    )
    last = f"{NAME}-{REPLICAS - 1}"
    await_until(
        lambda: statuses(road.pods.all().get(last, before[last]))["sidecar"]["restartCount"] > 1,
        lambda: f"the sidecar of {last} has loaded filters that are not there",
    )
    # The message of the container that ended says what to do.
    ended = statuses(road.pods.all()[last])["sidecar"]["lastState"]["terminated"]
    assert "/nothing" in ended["message"]
    assert set(road.pods.ready()) == set(before) - {last}, "the rollout went on"
    road.pods.rollout("undo")
    assert len(road.pods.wait_ready(REPLICAS)) == REPLICAS


def scale_up_and_down(road):
    for count in (4, 1, REPLICAS):
        road.pods.kubectl("scale", f"statefulset/{NAME}", f"--replicas={count}")
        road.pods.wait_ready(count)


def load(pods, text, result="ok"):
    """Change the filter, and wait until each pod has tried to load it; none is started again."""

    def reloads():
        return [
            pods.metric(pod, "fluent_bridge_filter_reloads_total", result=result)
            for pod in pods.all()
        ]

    before, untouched = reloads(), (pods.uids(), pods.restarts())
    pods.write_filter(text)
    pods.apply()
    await_until(
        lambda: all(now > then for now, then in zip(reloads(), before, strict=True)),
        lambda: f"the filters were to be loaded anew: {result}\n{pods.describe()}",
    )
    assert (pods.uids(), pods.restarts()) == untouched


def change_the_filter(road):
    load(road.pods, SECOND_VERSION)


def change_the_filter_to_one_that_does_not_load(road):
    pods = road.pods
    with PrometheusServer(road.folder(), pods, pods.alerts()) as prometheus:
        load(pods, BROKEN, "failed")
        for pod in pods.all():
            status, text = pods.fetch(pod, "/readyz")
            assert status == 200, "the filters of before go on"
            assert "10_ads.py" in json.dumps(json.loads(text)["warnings"])
            assert pods.metric(pod, "fluent_bridge_filters_outdated") == 1
        prometheus.await_alert("FluentBridgeFiltersOutdated", pods.all())
    pods.write_filter(SECOND_VERSION)  # as it runs: nothing is loaded
    pods.apply()
    await_until(
        lambda: not any(pods.metric(pod, "fluent_bridge_filters_outdated") for pod in pods.all()),
        pods.describe,
    )


def kill_fluentd(road):
    road.pods.kill(road.any(), "fluentd")


def kill_the_sidecar(road):
    road.pods.kill(road.any(), "sidecar")


def evict_and_drain(road):
    pods = road.pods
    before = pods.all()
    evictions = [
        pods.kubectl(
            "create",
            "--raw",
            f"/api/v1/namespaces/{pods.namespace}/pods/{pod}/eviction",
            "-f",
            "-",
            stdin=json.dumps(
                {
                    "apiVersion": "policy/v1",
                    "kind": "Eviction",
                    "metadata": {"name": pod, "namespace": pods.namespace},
                }
            ),
            check=False,
        )
        for pod in before
    ]
    assert [done.returncode for done in evictions] == [0, 1]
    assert "disruption budget" in evictions[1].stderr
    first = next(iter(before.values()))["metadata"]["uid"]
    await_until(lambda: first not in pods.uids() and len(pods.ready()) == REPLICAS, pods.describe)
    (name,) = {pod["spec"]["nodeName"] for pod in pods.all().values()}
    drain = (
        "drain",
        name,
        "--pod-selector",
        SELECTOR,
        "--delete-emptydir-data",
        "--timeout",
        "20s",
    )
    try:
        # There is no other node: the second pod stays until the first is ready again, which is never.
        drained = pods.kubectl(*drain, check=False)
        assert drained.returncode != 0
        assert "violate the pod's disruption budget" in drained.stderr + drained.stdout
        assert len(pods.ready()) == REPLICAS - 1
    finally:
        pods.kubectl("uncordon", name)
    pods.wait_ready(REPLICAS)


def delete_a_pod_with_one_second_of_grace(road):
    pod = road.any()
    uid = road.pods.all()[pod]["metadata"]["uid"]
    road.pods.kubectl("delete", "pod", pod, "--grace-period=1")
    await_until(
        lambda: uid not in road.pods.uids() and len(road.pods.ready()) == REPLICAS,
        road.pods.describe,
    )


FAULTS = {  # and how many seconds they last at most, on two busy cores
    nothing: 20,
    restart_all_pods_in_turn: 80,
    change_an_image_and_roll_back: 150,
    roll_out_what_does_not_load_and_roll_back: 80,
    scale_up_and_down: 90,
    change_the_filter: 20,
    change_the_filter_to_one_that_does_not_load: 100,
    kill_fluentd: 30,
    kill_the_sidecar: 30,
    evict_and_drain: 100,
    delete_a_pod_with_one_second_of_grace: 40,
}


def check(road, ids, figures, what, began):
    tally = road.flow.tally
    mine = tally.counts[: ids.stop]
    missing = [number for number in ids if not mine[number]]
    twice = [number for number, count in enumerate(mine) if count > 1]
    figures(
        f"exactly once, {what}, {len(ids):,} events: {len(missing)} missing, {len(twice)} twice,"
        f" {time.monotonic() - began:.0f} s"
    )
    details = f"\n{tally.where([*missing, *twice])}\n{road.pods.describe()}"
    assert not missing, f"{len(missing)} missing{details}"
    assert not twice, f"{len(twice)} twice{details}"
    assert not tally.misplaced, f"not filtered, or not where it belongs: {tally.misplaced[:20]}"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_every_id_comes_out_once(road, figures, fault):
    ids = road.ids()
    began = time.monotonic()
    with road.flow.events(ids, FAULTS[fault]):
        fault(road)
    what = fault.__name__
    if fault is nothing:
        what += f", ready {road.seconds_to_ready:.0f} s after kubectl apply -k"
    check(road, ids, figures, what, began)
    if fault is change_the_filter:
        assert b'"version":2' in road.flow.last_result


@pytest.mark.parametrize("memory", ["data", "shared"])
def test_out_of_memory_in_a_worker(road, figures, memory):
    """An event that takes all of it: by the limit of workers, and behind its back, so that the kernel has to act."""
    pods = road.pods
    load(pods, GREEDY)
    restarts = pods.restarts()
    ids = road.ids()
    poison = ids.start + 50_013

    def make(number):
        text = event(number)
        return (
            text.replace(b"{", b'{"take":"%s",' % memory.encode(), 1) if number == poison else text
        )

    began = time.monotonic()
    with road.flow.events(ids, 60, make):
        await_until(
            lambda: (
                sum(pods.metric(pod, "fluent_bridge_worker_restarts_total") for pod in pods.all())
                >= 2
            ),
            pods.describe,
        )
    check(road, ids, figures, f"out of memory ({memory})", began)
    assert pods.restarts() == restarts, "only workers were to be replaced"
