"""What happens to pods while events flow through them."""

import json

from ids import ENRICH
from kubernetes_node import Node
from monitoring import GROUPS, targets
from pods import FLUENTD, MOST_REPLICAS, NAME, REPLICAS, SELECTOR, SIDECAR, await_until, statuses
from prometheus_server import PrometheusServer

SECOND_VERSION = ENRICH.replace("    return record", '    record["version"] = 2\n    return record')
BROKEN = ENRICH.replace("def enrich(", "def enrich(:")


def nothing(road):
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
    # What stands in the buffers of a pod that went waits for a pod of that name.
    for count in (MOST_REPLICAS, 1, MOST_REPLICAS if road.buffered else REPLICAS):
        road.pods.scale(count)


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
    scraped = [
        target
        for name, pod in pods.all().items()
        for target in targets(
            pods.namespace, name, pod["status"]["podIP"], admin=SIDECAR, metrics=FLUENTD
        )
    ]
    with PrometheusServer(pods.folder(), scraped, GROUPS) as prometheus:
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
