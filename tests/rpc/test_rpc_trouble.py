"""Deadlines, cancelled calls, dying workers, retries, and the end."""

import concurrent.futures
import os
import signal
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_rig import LARGE, Rig, events, large

from bridge.rpc.v1 import sidecar_pb2 as pb

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

# Does what an event says: sleeps, or kills its worker.
OBEY = """
import os, signal, time

@bridge.filter("**")
def obey(record):
    time.sleep(record.get("sleep", 0))
    if record.get("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    return record
"""


@pytest.fixture
def threads():
    with concurrent.futures.ThreadPoolExecutor(40) as executor:
        yield executor


@pytest.fixture
def callers(threads):
    """Return a function that makes a call in a thread of its own, and returns its future."""
    return lambda rig, entries, **options: threads.submit(rig.process, b"ad", entries, **options)


def end_of(call):
    """Return the error that a call ends with."""
    error = call.exception(60)
    assert isinstance(error, grpc.RpcError), error
    return error


def test_a_deadline_ends_the_call_and_what_waits_behind_it(rig, callers):
    started = rig(OBEY, workers__count=1)
    blocker = callers(started, events({"sleep": 3}))
    started.wait_for("rpc_calls_in_progress", 1)
    late = [callers(started, events({"late": True}), timeout=1) for _ in range(20)]
    for call in late:
        assert end_of(call).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert blocker.result().counts == {b"ad": 1}
    started.wait_for("in_flight_bytes", 0)
    assert started.process(b"ad", events({})).counts == {b"ad": 1}
    # The worker has one in its socket beside the one that it runs; the others were forgotten.
    assert started.metric("filter_events_total") <= 3
    assert started.metric("rpc_calls_total{code=DEADLINE_EXCEEDED,method=Process}") == 20


def test_a_cancelled_call_stops_costing(rig):
    started = rig(OBEY, workers__count=1)
    first = started.stub.Process.future(started.request(b"ad", events({"sleep": 2})))
    started.wait_for("rpc_calls_in_progress", 1)
    others = [
        started.stub.Process.future(started.request(b"ad", large(sleep=0.001))) for _ in range(5)
    ]
    started.wait_for("rpc_calls_in_progress", 6)
    for call in (first, *others):
        call.cancel()
    started.wait_for("rpc_calls_in_progress", 0)
    started.wait_for("in_flight_bytes", 0)
    assert started.process(b"ad", events({})).counts == {b"ad": 1}
    assert started.metric("filter_events_total") <= 2 + LARGE
    assert started.metric("rpc_calls_total{code=CANCELLED,method=Process}") == 6


def test_a_call_cancelled_while_its_pieces_run(rig):
    started = rig(OBEY, workers__count=2)
    entries = large() + events({"sleep": 5})
    call = started.stub.Process.future(started.request(b"ad", entries))
    started.wait_for("worker_chunk_seconds_count", 1)  # one piece is done, its results are held
    assert started.metric("in_flight_bytes") > len(entries)
    call.cancel()
    started.wait_for("in_flight_bytes", 0)


@pytest.mark.parametrize("count", [20, LARGE])
def test_events_that_kill_workers_come_back_as_errors(rig, count):
    started = rig(OBEY)
    deadly = {3, count // 2, count - 1}
    entries = events(*({"id": i, "die": i in deadly, "pad": "x" * 60} for i in range(count)))
    reply = started.process(b"ad", entries, count)
    assert [one["id"] for one in reply.records(b"ad")] == sorted(set(range(count)) - deadly)
    errors = reply.records(b"error.ad")
    assert [one["record"]["id"] for one in errors] == sorted(deadly)
    assert {one["error"]["class"] for one in errors} == {"WorkerKilled"}
    assert reply.response.received == count


def test_a_filter_that_never_returns_costs_its_event_alone(rig):
    started = rig(OBEY, workers__deadline=1)
    reply = started.process(b"ad", events({"id": 0}, {"id": 1, "sleep": 600}, {"id": 2}))
    assert [one["id"] for one in reply.records(b"ad")] == [0, 2]
    assert reply.records(b"error.ad")[0]["error"]["class"] == "DeadlineExceeded"


@pytest.mark.parametrize(
    "entries",
    [
        events(*({"id": i, "sleep": 0.1} for i in range(10))),
        events(*({"id": i, "sleep": 0.0001, "pad": "x" * 60} for i in range(LARGE))),
    ],
)
def test_a_worker_killed_in_a_call(rig, callers, entries):
    started = rig(OBEY)
    call = callers(started, entries)
    started.wait_for("rpc_calls_in_progress", 1)
    os.kill(started.sidecar.worker_pids[0], signal.SIGKILL)
    reply = call.result(60)
    assert reply.streams == {b"ad": entries}
    assert started.metric("retried_chunks_total") > 0


RETRY = """
import pathlib

@bridge.filter("**")
def wait(record):
    asked = pathlib.Path(__file__).with_name("asked")
    if record.get("wait"):
        with asked.open("a") as file:
            file.write("x")
        if asked.stat().st_size <= record["times"]:
            raise bridge.Retry(record["wait"])
    return record
"""


def test_a_retry_is_waited_for(rig):
    started = rig(RETRY)
    # In the last piece of a batch that is cut: the first is run again with it.
    entries = large() + events({"wait": 0.3, "times": 2})
    reply = started.process(b"ad", entries)
    assert reply.streams == {b"ad": entries}
    assert reply.response.received == LARGE + 1 == started.metric("received_events_total")
    assert started.metric("retried_chunks_total{reason=retry}") == 2
    assert len(started.log("batch is to come again")) == 1


@pytest.mark.parametrize("before", [b"", large()])
def test_a_retry_that_the_caller_has_no_time_for(rig, before):
    started = rig(RETRY)
    error = started.fails(b"ad", before + events({"wait": 30, "times": 9}), timeout=10)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "tag ad: the chunk is to come again after 30 s" in error.details()
    assert dict(error.trailing_metadata())["grpc-retry-pushback-ms"] == "30000"
    started.wait_for("in_flight_bytes", 0)


# Each event gets the number of events that the function saw at once.
BATCH = """
@bridge.filter("start.**")
def turn(event: bridge.Event):
    event.tag = "all"
    return event

@bridge.batch("all")
def number(records):
    return [record | {"n": len(records)} for record in records]

@bridge.filter("after")
def after(record):
    return record | {"n": 0}
"""


def test_a_filter_over_all_events_sees_all_events(rig):
    started = rig(BATCH, workers__count=4)
    reply = started.process(b"all", large())
    assert {record["n"] for record in reply.records(b"all")} == {LARGE}
    started.process(b"start.x", large())
    assert started.metric("worker_chunk_seconds_count") == 2, "one for each batch"
    started.process(b"after", large())
    assert started.metric("worker_chunk_seconds_count") > 3, "another tag is cut"


def test_more_calls_than_the_bound(rig, callers):
    started = rig(OBEY, rpc__max_calls=2)
    working = [callers(started, events({"sleep": 2})) for _ in range(2)]
    started.wait_for("rpc_calls_in_progress", 2)
    error = started.fails(b"ad", events({}))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == (
        "the sidecar works on 2 batches already: come again, or raise rpc.max_calls"
    )
    assert all(call.result().counts == {b"ad": 1} for call in working)
    assert started.process(b"ad", events({})).counts == {b"ad": 1}


def test_results_that_fill_the_budget_hold_nobody_up_for_ever(rig, threads):
    started = rig(
        """
        @bridge.filter("**")
        def grow(record):
            return record | {"more": "x" * 400}
        """,
        delivery__bytes_in_flight="1MiB",
        rpc__max_message_bytes="1MiB",
        workers__count=3,
    )

    def come_again():
        while True:
            try:
                return started.process(b"ad", large(), count=LARGE)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                time.sleep(0.1)

    calls = [threads.submit(come_again) for _ in range(30)]
    assert all(call.result(90).counts == {b"ad": LARGE} for call in calls)
    started.wait_for("in_flight_bytes", 0)


def test_batches_beyond_the_bytes_in_flight_come_again(rig, callers):
    started = rig(OBEY, delivery__bytes_in_flight="1MiB", rpc__max_message_bytes="1MiB")
    batch = events({"sleep": 2, "pad": "x" * 400_000})
    working = [callers(started, batch) for _ in range(3)]
    started.wait_for("rpc_calls_in_progress", 3)
    error = started.fails(b"ad", events({}))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "come again, or raise delivery.bytes_in_flight" in error.details()
    assert all(call.result().counts == {b"ad": 1} for call in working)
    started.wait_for("in_flight_bytes", 0)
    assert started.process(b"ad", events({})).counts == {b"ad": 1}


def test_health_from_start_to_end(make_sidecar, callers, threads):
    sidecar = make_sidecar("import time\ntime.sleep(2)\n" + OBEY)
    starting = threads.submit(sidecar.start)
    rig = Rig(sidecar, sidecar.target)
    health = health_pb2_grpc.HealthStub(rig.channel)
    grpc.channel_ready_future(rig.channel).result(30)
    check = health_pb2.HealthCheckRequest
    for name in ("", "bridge.rpc.v1.Sidecar"):
        assert health.Check(check(service=name)).status == NOT_SERVING
    error = rig.fails(b"ad", events({}))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "its filters are not loaded" in error.details()
    with pytest.raises(grpc.RpcError) as caught:
        rig.stub.Describe(pb.DescribeRequest())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    watch = health.Watch(check())
    assert next(watch).status == NOT_SERVING
    assert next(watch).status == SERVING
    starting.result()
    for name in ("", "bridge.rpc.v1.Sidecar"):
        assert health.Check(check(service=name)).status == SERVING

    call = callers(rig, events({"sleep": 2}))
    rig.wait_for("rpc_calls_in_progress", 1)
    stopping = threads.submit(sidecar.stop)
    assert next(watch).status == NOT_SERVING
    assert list(watch) == []
    error = rig.fails(b"ad", events({}))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert call.result().counts == {b"ad": 1}, "what was begun is finished"
    assert stopping.result() == 0
    assert rig.log("drained, everything received was answered")
    rig.close()


def test_a_retry_does_not_hold_up_the_end(rig, callers):
    started = rig(RETRY)
    call = callers(started, events({"wait": 50, "times": 9}))
    started.wait_for("retried_chunks_total{reason=retry}", 1)
    assert started.sidecar.stop() == 0
    error = end_of(call)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(error.trailing_metadata())["grpc-retry-pushback-ms"] == "50000"


def test_what_does_not_end_within_the_grace_is_given_back(rig, callers):
    started = rig(OBEY, shutdown__grace=1)
    call = callers(started, events({"sleep": 20}))
    started.wait_for("rpc_calls_in_progress", 1)
    assert started.sidecar.stop() == 0
    assert end_of(call).code() is grpc.StatusCode.UNAVAILABLE
    assert started.log("not drained in time: upstream keeps what was not acknowledged")


def test_the_log_has_no_lines_but_ours(rig, callers):
    started = rig(OBEY)
    calls = [callers(started, large(sleep=0.0001)) for _ in range(8)]
    started.wait_for("rpc_calls_in_progress", 8)
    for pid in started.sidecar.worker_pids:  # new ones are started while gRPC is busy
        os.kill(pid, signal.SIGKILL)
    assert all(call.result().counts == {b"ad": LARGE} for call in calls)
    assert started.sidecar.stop() == 0
    lines = started.sidecar.log()
    assert [line for line in lines if "logger" not in line] == []
    assert {line["logger"].split(".")[0] for line in lines} == {"bridge"}
