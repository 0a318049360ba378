"""Filters that change while gRPC callers wait."""

import concurrent.futures
import os
import signal

from grpc_rig import LARGE, large

STAMP = """
@bridge.filter("ad")
def stamp(record: dict) -> dict:
    return record | {"v": 1}
"""
DIES = """
import os, time

@bridge.filter("ad")
def dies(record: dict) -> dict:
    while record["id"] == 3999:
        time.sleep(0.01)
        if os.path.exists("{}"):
            os._exit(3)
    return record | {{"seen": 1}}
"""
WHOLE = """
@bridge.batch("ad")
def whole(records: list[dict]) -> list[dict]:
    return [record | {"seen": len(records)} for record in records]
"""


def change(rig, filters):
    """Have other filters loaded, and wait until they run."""
    ok = "filter_reloads_total{result=ok}"
    before = rig.metric(ok)
    (rig.sidecar.filters / "filters.py").write_text("import bridge\n" + filters)
    os.kill(rig.sidecar.pid, signal.SIGHUP)
    rig.wait_for(ok, before + 1)


def test_callers_get_replies_of_one_version_while_filters_change(rig):
    started = rig(STAMP)
    stop = []

    def call():
        versions = []
        while not stop:
            records = started.process(b"ad", large()).records(b"ad")
            assert [record["id"] for record in records] == list(range(LARGE))
            versions.append({record["v"] for record in records})
        return versions

    with concurrent.futures.ThreadPoolExecutor(2) as callers:
        calls = [callers.submit(call) for _ in range(2)]
        for version in (2, 3, 4):
            change(started, STAMP.replace("1", str(version)))
        stop.append(True)
    for each in calls:
        versions = each.result()
        assert {len(one) for one in versions} == {1}
    assert started.process(b"ad", large()).records(b"ad")[0]["v"] == 4
    assert not started.metric("retried_chunks_total")


def test_a_batch_cut_for_the_old_filters_is_not_run_in_pieces_by_new_ones(rig, tmp_path):
    gate = tmp_path / "gate"
    started = rig(DIES.format(gate))
    with concurrent.futures.ThreadPoolExecutor(1) as callers:
        call = callers.submit(started.process, b"ad", large())
        started.wait_for("rpc_calls_in_progress", 1)
        # One piece is done soon; the other ends its worker when the new filters run.
        change(started, WHOLE)
        gate.touch()
        seen = [record["seen"] for record in call.result().records(b"ad")]
    assert seen == [LARGE] * LARGE
    assert started.metric("retried_chunks_total") == 1
