"""Pods of the example on a real node, between topics of a real Kafka: every id comes out, whatever happens to them.

One deployment a road for all faults. Each fault has its own ids, and they are all looked at again with each: what
comes late, or once more, is found.
"""

import random
import time

import pytest
from faults import (
    SECOND_VERSION,
    change_an_image_and_roll_back,
    change_the_filter,
    change_the_filter_to_one_that_does_not_load,
    delete_a_pod_with_one_second_of_grace,
    evict_and_drain,
    kill_fluentd,
    kill_the_sidecar,
    load,
    nothing,
    restart_all_pods_in_turn,
    roll_out_what_does_not_load_and_roll_back,
    scale_up_and_down,
)
from flow import Flow
from ids import ENRICH, Topics, event
from pods import FLUENTD, MOST_REPLICAS, REPLICAS, Pods, await_until
from record import Record
from volumes import Volumes

pytestmark = [pytest.mark.kubernetes, pytest.mark.kafka, pytest.mark.timeout(700)]

EVENTS = 200_000
PARTITIONS = 4
READY_WITHIN = 60  # seconds from `kubectl apply -k`, with the images on the node
ROADS = {"exactly-once": [], "forward": ["forward"]}  # and the components of each

FAULTS = {  # and how many seconds events flow meanwhile
    nothing: 20,
    restart_all_pods_in_turn: 65,
    change_an_image_and_roll_back: 120,
    roll_out_what_does_not_load_and_roll_back: 70,
    scale_up_and_down: 90,
    change_the_filter: 20,
    change_the_filter_to_one_that_does_not_load: 100,
    kill_fluentd: 30,
    kill_the_sidecar: 30,
    evict_and_drain: 90,
    delete_a_pod_with_one_second_of_grace: 40,
}
SMOKE = (nothing, restart_all_pods_in_turn)
ROOM = len(FAULTS) + 3  # tests of a road

# Memory of its own, and such as can be shared. An id that ends in 013 is refused anyway, so its dead letter is expected.
GREEDY = """
import mmap

def take(what):
    own = []
    while what == "data":
        own.append(bytearray(1 << 20))
    shared = mmap.mmap(-1, 8 << 30)
    while True:
        shared.write(bytes(1 << 20))

""" + ENRICH.replace(
    "    if record", '    if "take" in record:\n        take(record["take"])\n    if record', 1
)
SLOW = "import time\n" + ENRICH.replace("    if record", "    time.sleep(0.001)\n    if record", 1)


class Road:
    """What the tests of a road share: the pods, and events that flow through them."""

    def __init__(self, name, kubectl, broker, new_folder):
        self.name = name
        self.buffered = name == "forward"
        self.topics = Topics(broker, f"{name}-{random.randrange(10**9)}", PARTITIONS)
        self.pods = Pods(
            kubectl, new_folder(), self.topics.group, self.topics, components=ROADS[name]
        )
        self.volumes = Volumes(kubectl, new_folder(), self.topics.group)
        self.flow = Flow(self.topics, PARTITIONS, ROOM * EVENTS)
        self._used = 0

    def start(self):
        """Return the seconds from `kubectl apply -k` until the pods are ready."""
        self.pods.create()
        if self.buffered:
            self.volumes.create(MOST_REPLICAS)
        began = time.monotonic()
        self.pods.apply()
        self.pods.wait_ready(REPLICAS)
        return time.monotonic() - began

    def stop(self):
        self.flow.close()
        self.pods.remove()
        self.volumes.remove()
        self.topics.delete()

    def ids(self):
        """Return ids that no test has had."""
        self._used += EVENTS
        return range(self._used - EVENTS, self._used)

    def any(self):
        """Return the name of a pod."""
        return random.choice(sorted(self.pods.all()))

    def check(self, ids, figures, what, seconds):
        """Hold that all of these have come out, and none of all so far more often than the road promises."""
        tally = self.flow.tally
        counts = tally.counts[: ids.stop]
        missing = [number for number in ids if not counts[number]]
        twice = [number for number, count in enumerate(counts) if count > 1]
        figures(
            f"{self.name}, {what}, {len(ids):,} events: {len(missing)} missing,"
            f" {len(twice)} of all twice, {seconds:.0f} s"
        )
        details = f"\n{tally.where([*missing, *twice])}\n{self.pods.describe()}"
        assert not missing, f"{len(missing)} missing{details}"
        assert not tally.misplaced, f"not filtered, or not where it belongs: {tally.misplaced[:20]}"
        if self.name == "exactly-once":
            assert not twice, f"{len(twice)} twice{details}"


@pytest.fixture(scope="module", params=ROADS)
def road(request, kubectl, images, broker, tmp_path_factory):
    one = Road(request.param, kubectl, broker, lambda: tmp_path_factory.mktemp("road"))
    try:
        seconds = one.start()
        assert seconds < READY_WITHIN
        one.seconds_to_ready = seconds
        yield one
    finally:
        one.stop()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, marks=pytest.mark.smoke if fault in SMOKE else (), id=fault.__name__)
        for fault in FAULTS
    ],
)
def test_every_id_comes_out(road, figures, fault):
    ids = road.ids()
    began = time.monotonic()
    with road.flow.events(ids, FAULTS[fault]):
        fault(road)
    road.pods.scale(REPLICAS)
    what = fault.__name__
    if fault is nothing:
        what += f", ready {road.seconds_to_ready:.0f} s after kubectl apply -k"
    road.check(ids, figures, what, time.monotonic() - began)
    if fault is change_the_filter:
        assert b'"version":2' in road.flow.last_result


@pytest.mark.smoke
def test_the_sidecar_is_there_before_fluentd_and_goes_after_it(road):
    pods = road.pods
    pod = road.any()
    old = pods.all()[pod]["metadata"]["uid"]
    with Record(pods, pod) as record:
        pods.kubectl("delete", "pod", pod)
        pods.wait_ready(REPLICAS)
    states = [(uid, now) for name, uid, now in record.states() if name == pod and now]
    coming = [now for uid, now in states if uid != old]
    assert any(now["sidecar"]["started"] and not now["fluentd"]["started"] for now in coming)
    assert any(now["fluentd"]["started"] for now in coming)
    for now in coming:
        # Its startup probe has passed, which asks whether it is ready.
        assert now["sidecar"]["started"] or "waiting" in now["fluentd"]["state"]
    gone = [now for uid, now in states if uid == old][-1]
    ends = {name: status["state"]["terminated"] for name, status in gone.items()}
    assert {name: end["exitCode"] for name, end in ends.items()} == {"sidecar": 0, "fluentd": 0}
    assert ends["fluentd"]["finishedAt"] <= ends["sidecar"]["finishedAt"]
    last = record.time_of("fluentd", "Worker 0 finished with status 0")
    assert last < record.time_of("sidecar", '"event":"draining"'), "SIGTERM came while Fluentd ran"


@pytest.mark.parametrize("memory", ["data", "shared"])
def test_out_of_memory_in_a_worker(road, figures, memory):
    """An event that alone takes all of it is a dead letter, and only workers are replaced."""
    pods = road.pods
    load(pods, GREEDY + f"# {memory}\n")
    restarts = pods.restarts()
    ids = road.ids()
    poison = ids.start + 50_013

    def make(number):
        text = event(number)
        if number == poison:
            text = text.replace(b",", b',"take":"%s",' % memory.encode(), 1)
        return text

    def replaced():
        return sum(pods.metric(pod, "fluent_bridge_worker_restarts_total") for pod in pods.all())

    began, before = time.monotonic(), replaced()
    with road.flow.events(ids, 60, make):
        await_until(lambda: replaced() >= before + 2, pods.describe)
    road.check(ids, figures, f"out of memory ({memory})", time.monotonic() - began)
    assert pods.restarts() == restarts, "only workers were to be replaced"
    logs = "".join(
        pods.kubectl("logs", pod, "-c", "sidecar", "--tail", "200") for pod in pods.all()
    )
    assert "more than workers.memory_limit" in logs


def test_a_pod_is_deleted_while_it_is_behind(road, figures):
    """What is buffered by then, where there are buffers, is on the volume, and is sent by the pod that comes."""
    pods, volumes = road.pods, road.volumes

    def waiting(pod):
        if road.buffered:
            return volumes.chunks(pod)
        return pods.metric(pod, "fluent_bridge_kafka_lag", FLUENTD)

    load(pods, SLOW)
    ids = road.ids()
    began = time.monotonic()
    with road.flow.events(ids, 10):
        await_until(lambda: all(map(waiting, pods.all())), pods.describe)
        pod = road.any()
        uid = pods.all()[pod]["metadata"]["uid"]
        pods.kubectl("delete", "pod", pod, "--grace-period=1")
        what = "a pod deleted while it was behind"
        if road.buffered:
            kept = volumes.chunks(pod)
            assert kept, "what was buffered was to be there when the pod is gone"
            what += f" by {kept} chunks"
        await_until(lambda: uid not in pods.uids() and pod in pods.ready(), pods.describe)
        load(pods, SECOND_VERSION)
    road.check(ids, figures, what, time.monotonic() - began)
    if road.buffered:
        await_until(lambda: not any(map(waiting, pods.all())), pods.describe)
