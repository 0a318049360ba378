"""Events that kill workers, or never return, cost nobody but themselves."""

import os
import signal
import time

import pytest

from bridge.forward import Client

POISON = """
import ctypes, os, time

@bridge.filter("ad.**")
def poison(record: dict) -> dict:
    match record.get("do"):
        case "segfault":
            ctypes.string_at(0)
        case "hang":
            time.sleep(3600)
        case "exit":
            os._exit(3)
        case "raise SystemExit":
            raise SystemExit("enough")
    record["seen"] = True
    return record
"""

BATCH = """
import ctypes

@bridge.batch("ad.**")
def poison(records: list[dict]) -> list[dict]:
    for record in records:
        if record.get("do") == "segfault":
            ctypes.string_at(0)
    return records
"""


GREEDY = """
import mmap, threading

HELD = []
# What libraries do: reserve much more than the limit, and touch none of it.
THREADS = [threading.Thread(target=threading.Event().wait, daemon=True) for _ in range(40)]
for thread in THREADS:
    thread.start()

def take(how):
    shared = mmap.mmap(-1, 4 << 30)
    while True:
        if how == "shared":
            shared.write(bytes(1 << 20))
        else:
            HELD.append(bytearray(1 << 20))

@bridge.filter("ad.**")
def greedy(record: dict) -> dict:
    if record["id"] % 15 == 0:
        HELD.append(bytearray(1 << 20))
    if "take" in record:
        take(record["take"])
    return record
"""


def send(port, events):
    with Client("127.0.0.1", port, timeout=60, window=4) as client:
        for start in range(0, len(events), 2500):
            client.send("ad.click", events[start : start + 2500])
        client.flush()


def test_a_segfault_and_a_hang_among_ten_thousand(rig):
    running = rig(POISON, workers__deadline=2)
    events = [{"id": i} for i in range(10_000)]
    events[4321]["do"] = "segfault"
    events[6789]["do"] = "hang"
    send(running.port, events)
    out = running.received.records("ad.click")
    dead = running.received.records("error.ad.click")
    assert len(out) == 9_998
    assert {record["id"] for record in out} == set(range(10_000)) - {4321, 6789}
    assert all(record["seen"] for record in out)
    reasons = {one["record"]["id"]: one["error"] for one in dead}
    assert set(reasons) == {4321, 6789}
    assert len(dead) == 2
    assert reasons[4321]["class"] == "WorkerKilled"
    assert "was killed by SIGSEGV" in reasons[4321]["message"]
    assert reasons[6789]["class"] == "DeadlineExceeded"
    assert "did not return within the deadline of 2 s" in reasons[6789]["message"]
    assert all(error["attempts"] >= 2 for error in reasons.values())
    ends = time.monotonic() + 20
    while running.sidecar.metrics()["fluent_bridge_ready_workers"] < 2:
        assert time.monotonic() < ends, "the workers were not replaced"
        time.sleep(0.1)
    assert running.sidecar.ready()
    metrics = running.sidecar.metrics()
    assert metrics["fluent_bridge_received_events_total"] == 10_000
    assert metrics["fluent_bridge_emitted_events_total"] == 9_998
    assert metrics["fluent_bridge_error_events_total"] == 2


def test_events_that_take_all_memory_and_a_filter_that_loses_some_with_each(rig):
    running = rig(GREEDY, workers__memory_limit="300MiB", workers__count=1)
    events = [{"id": i} for i in range(15_000)]
    events[1234]["take"] = "its own"
    events[5678]["take"] = "shared"
    send(running.port, events)
    out = running.received.records("ad.click")
    dead = running.received.records("error.ad.click")
    assert {record["id"] for record in out} == set(range(15_000)) - {1234, 5678}
    assert {one["record"]["id"] for one in dead} == {1234, 5678}
    assert all("more than workers.memory_limit" in one["error"]["message"] for one in dead)
    restarts = running.sidecar.metrics()["fluent_bridge_worker_restarts_total"]
    assert restarts > 6  # three for each of these; the others lost a GiB


KEEPING = """
import time

HELD = [bytearray(1 << 20) for _ in range(220)]

@bridge.filter("ad.**")
def keep(record: dict) -> dict:
    if record["id"] in (50, 60):
        HELD.append(bytes(1 << 20) * 60)
        time.sleep(0.3)  # long enough to be looked at
    return record
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_nobody_pays_for_what_the_event_before_has_kept(rig, workers):
    # A worker begins with 242 MiB: one event that keeps 60 is not too much, two are.
    running = rig(KEEPING, workers__memory_limit="330MiB", workers__count=workers)
    for turn in range(2):
        send(running.port, [{"id": i, "turn": turn} for i in range(200)])
    out = running.received.records("ad.click")
    dead = running.received.records("error.ad.click")
    assert sorted((one["turn"], one["id"]) for one in out + [d["record"] for d in dead]) == [
        (turn, i) for turn in range(2) for i in range(200)
    ]
    assert not dead
    assert running.sidecar.metrics()["fluent_bridge_worker_restarts_total"] >= 1


def test_files_that_are_mapped_do_not_count_and_what_is_held_while_loading_does(rig, tmp_path):
    table = tmp_path / "table"
    table.write_bytes(bytes(100 << 20))
    mapped = f"""
import mmap
FILE = open({str(table)!r}, "rb")
TABLE = mmap.mmap(FILE.fileno(), 0, access=mmap.ACCESS_READ)
assert not any(TABLE[i] for i in range(0, len(TABLE), 4096))

@bridge.filter("ad.**")
def pass_on(record: dict) -> bool:
    return True
"""
    running = rig(mapped, workers__memory_limit="100MiB", filters__reload_interval=0.2)
    send(running.port, [{"id": 1}])
    assert running.received.records("ad.click") == [{"id": 1}]
    file = tmp_path / "filters0" / "filters.py"
    file.write_text(
        "HELD = bytes(1 << 20) * 200\n" + file.read_text() + "\nimport time\ntime.sleep(1)"
    )
    ends = time.monotonic() + 30
    while not running.sidecar.metrics()["fluent_bridge_filters_outdated"]:
        assert time.monotonic() < ends
        time.sleep(0.1)
    (line,) = (one for one in running.sidecar.log() if "filters not reloaded" in one["event"])
    assert "more than workers.memory_limit, 100 MiB" in str(line["mistakes"])


def test_order_within_a_chunk_survives_the_cut(rig):
    running = rig(POISON)
    events = [{"id": i} for i in range(1000)]
    for index in (0, 1, 500, 999):
        events[index]["do"] = "exit"
    events[700]["do"] = "raise SystemExit"
    send(running.port, events)
    ids = [record["id"] for record in running.received.records("ad.click")]
    assert ids == [i for i in range(1000) if i not in (0, 1, 500, 700, 999)]
    dead = {one["record"]["id"]: one["error"] for one in running.received.records("error.ad.click")}
    assert set(dead) == {0, 1, 500, 700, 999}
    assert "exit code 3" in dead[500]["message"]
    assert "SystemExit" in dead[700]["message"]


def test_a_batch_filter_is_cut_in_halves(rig):
    running = rig(BATCH)
    events = [{"id": i} for i in range(64)]
    events[37]["do"] = "segfault"
    send(running.port, events)
    assert [record["id"] for record in running.received.records("ad.click")] == [
        i for i in range(64) if i != 37
    ]
    (dead,) = running.received.records("error.ad.click")
    assert dead["record"] == {"id": 37, "do": "segfault"}


def test_an_innocent_chunk_survives_a_kill(rig):
    running = rig(
        """
        import time

        @bridge.filter("**")
        def slow(record: dict) -> dict:
            time.sleep(0.001)
            return record
        """
    )
    with Client("127.0.0.1", running.port, timeout=60, window=8) as client:
        for start in range(0, 4000, 500):
            client.send("ad.click", [{"id": i} for i in range(start, start + 500)])
        time.sleep(0.3)
        killed = running.sidecar.worker_pids
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        client.flush()
    ids = [record["id"] for record in running.received.records("ad.click")]
    assert sorted(ids) == list(range(4000))
    assert not running.received.chunks["error.ad.click"]
    assert not set(running.sidecar.worker_pids) & set(killed)


@pytest.mark.parametrize("count", [1, 2])
def test_workers_die_with_the_sidecar(rig, count):
    running = rig(
        """
        import time

        @bridge.filter("**")
        def hang(record: dict) -> dict:
            time.sleep(3600)
        """,
        workers__count=count,
    )
    pids = running.sidecar.worker_pids
    assert len(pids) == count
    client = Client("127.0.0.1", running.port, window=4)
    client.send("ad.click", [{"id": 1}])
    time.sleep(0.2)
    os.kill(running.sidecar.pid, signal.SIGKILL)
    ends = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):
        assert time.monotonic() < ends, "a worker outlived its sidecar"
        time.sleep(0.05)
    client.close()
    running.sidecar.kill()
