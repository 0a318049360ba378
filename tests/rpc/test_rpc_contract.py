"""What the contract promises, by a real client against the real sidecar."""

import random

import grpc
import msgpack
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_rig import EVERYTHING, LARGE, events, large

from bridge.forward import Client
from bridge.local.sink import Sink
from bridge.rpc.v1 import sidecar_pb2 as pb
from bridge.version import __version__

DOINGS = ["keep", "drop", "fail", "reject", "retag", "fan", "split", "change", None]


def doings(count):
    chosen = random.Random(7).choices(DOINGS, k=count)
    return events(*({"id": i, "do": do, "pad": "x" * 60} for i, do in enumerate(chosen))), chosen


@pytest.mark.parametrize("count", [9, LARGE])
def test_results_are_byte_for_byte_those_of_the_forward_road(rig, count):
    entries, chosen = doings(count)
    chunks = []
    with Sink(lambda chunk: chunks.append((chunk.tag.encode(), bytes(chunk.entries)))) as sink:
        started = rig(
            EVERYTHING, listen__enabled="true", downstream__port=sink.port, workers__count=3
        )
        with Client("127.0.0.1", started.sidecar.port) as client:
            client.send_packed("ad", entries, count)
            client.flush()
        runs = started.metric("worker_chunk_seconds_count")
        reply = started.process(b"ad", entries, count)
        runs = started.metric("worker_chunk_seconds_count") - runs
        assert started.sidecar.stop() == 0
    assert (runs > 1) == (count == LARGE), "large batches are cut, small ones are not"
    assert reply.streams == dict(chunks)
    assert reply.response.received == count
    assert reply.response.dropped == chosen.count("drop")
    errors = chosen.count("fail") + chosen.count("reject")
    assert reply.response.errors == errors == reply.counts[b"error.ad"]
    assert reply.counts[b"other"] == chosen.count("retag")
    assert reply.counts[b"copies"] == chosen.count("split")
    assert len(reply.records(b"ad")) == reply.counts[b"ad"]


def test_order_and_counts_hold_over_any_cut(rig):
    started = rig(EVERYTHING, workers__count=4)
    for count in (900, 901, 1800, LARGE, 2 * LARGE):
        entries, chosen = doings(count)
        for hint in (count, 0, count // 2, count + 7):
            reply = started.process(b"ad", entries, hint)
            expected = [
                i
                for i, do in enumerate(chosen)
                if do not in ("drop", "fail", "reject", "retag")
                for _ in range(3 if do == "fan" else 1)
            ]
            assert [record["id"] for record in reply.records(b"ad")] == expected
            failed = [i for i, do in enumerate(chosen) if do in ("fail", "reject")]
            assert [one["record"]["id"] for one in reply.records(b"error.ad")] == failed
    assert started.metric("worker_chunk_seconds_count") > 20


def test_metrics_count_the_road(rig):
    started = rig(EVERYTHING)
    entries = events({"do": "fail"}, {"do": "drop"}, {"do": "fan"}, {})
    started.process(b"ad", entries)
    started.fails(b"ad", b"\xc1")
    started.wait_for("in_flight_bytes", 0)
    for name, value in {
        "received_chunks_total": 2,
        "received_bytes_total": len(entries) + 1,
        "received_events_total": 4,
        "dropped_events_total": 1,
        "error_events_total": 1,
        "emitted_events_total": 4,
        "filter_events_total{filter=act}": 4,
        "rpc_calls_total{code=OK,method=Process}": 1,
        "rpc_calls_total{code=INVALID_ARGUMENT,method=Process}": 1,
        "rpc_call_seconds_count{method=Process}": 2,
        "rpc_calls_in_progress": 0,
    }.items():
        assert started.metric(name) == value, name


def test_a_batch_without_events(rig):
    started = rig(EVERYTHING)
    assert started.process(b"ad", b"").response == pb.ProcessResponse()


def test_a_tag_that_is_no_text(rig):
    started = rig(EVERYTHING)
    reply = started.process(b"ad.\xff", events({}, {"do": "fail"}))
    assert reply.counts == {b"ad.\xff": 1, b"error.ad.\xff": 1}
    assert "tag ad.\\xff: event 0 at byte 0" in started.fails(b"ad.\xff", b"\xc1").details()


def test_describe(rig):
    started = rig("""
        @bridge.filter("ad.**")
        def one(record): return record

        @bridge.batch("b.* c")
        def two(records): return records
    """)
    answer = started.stub.Describe(pb.DescribeRequest(plugin_version="0.3.1"))
    assert answer.version == __version__
    assert list(answer.capabilities) == []
    assert answer.max_request_bytes == 64 << 20
    assert [(one.name, one.pattern) for one in answer.filters] == [
        ("one", "ad.**"),
        ("two", "b.* c"),
    ]
    assert started.log("plugin connected")[0]["version"] == "0.3.1"


def test_an_unknown_requirement(rig):
    started = rig(EVERYTHING)
    with pytest.raises(grpc.RpcError) as caught:
        started.stub.Describe(pb.DescribeRequest(plugin_version="9.0", requires=["telepathy"]))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == (
        "the plugin (version 9.0) requires telepathy, which this sidecar (version"
        f" {__version__}) does not have: update the sidecar, fluent-bridge, to the plugin's version"
        " or later"
    )


GOOD = events({"id": 1})


@pytest.mark.parametrize(
    ("entries", "where"),
    [
        (b"\xc1", "event 0 at byte 0"),
        (GOOD + b"\xc1", f"event 1 at byte {len(GOOD)}"),
        (GOOD + GOOD[:-1], f"event 1 at byte {len(GOOD)}"),
        (GOOD + msgpack.packb({"no": "event"}), f"event 1 at byte {len(GOOD)}"),
        (GOOD + msgpack.packb([1, 2]), f"event 1 at byte {len(GOOD)}"),
        (b"\xdd\xff\xff\xff\xff" * 1000, "event 0 at byte 0"),
        # In the first, and in the second piece of a batch that is cut.
        (GOOD + b"\xc1" + large(), f"event 1 at byte {len(GOOD)}"),
        (large() + b"\xc1", f"event {LARGE} at byte {len(large())}"),
        (large() + msgpack.packb(7), f"event {LARGE} at byte {len(large())}"),
        (large()[:-1], f"event {LARGE - 1} at byte"),
    ],
)
def test_what_holds_no_events_is_refused_with_the_byte(shared, entries, where):
    error = shared.fails(b"ad.x", entries)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith(f"tag ad.x: {where}"), error.details()
    assert shared.process(b"ad.x", GOOD).counts == {b"ad.x": 1}
    assert shared.log("call refused")[-1]["reason"] == error.details()


@pytest.mark.parametrize("tag", [b"x" * 20_000, b"\xff" * 5000, "ü€".encode() * 3000])
def test_a_long_tag_does_not_hide_why_a_batch_is_refused(shared, tag):
    # A status of more than 8 KiB does not arrive: gRPC says instead that something is exhausted,
    # and the batch would come again for ever.
    error = shared.fails(tag, GOOD + b"\xc1")
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith("tag ")
    assert f"event 1 at byte {len(GOOD)}" in error.details()


def test_what_is_no_request_is_refused(shared):
    call = shared.channel.unary_unary("/bridge.rpc.v1.Sidecar/Process")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\xff\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "the request is no ProcessRequest" in caught.value.details()
    assert shared.process(b"ad.x", GOOD).counts == {b"ad.x": 1}


def test_a_compressed_request_is_refused(shared):
    # gRPC would decompress it whatever it becomes.
    with pytest.raises(grpc.RpcError) as caught:
        shared.stub.Process(
            shared.request(b"ad.x", events({"x": "y" * (1 << 20)})),
            compression=grpc.Compression.Gzip,
        )
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert shared.process(b"ad.x", GOOD).counts == {b"ad.x": 1}


def test_a_request_over_the_limit(rig):
    started = rig(EVERYTHING, rpc__max_message_bytes="1MiB")
    limit = started.stub.Describe(pb.DescribeRequest()).max_request_bytes
    assert limit == 1 << 20
    error = started.fails(b"ad", events({"x": "y" * limit}))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in error.details()
    assert started.process(b"ad", events({"x": "y" * (limit - 100)})).counts == {b"ad": 1}


def test_results_larger_than_any_request(rig):
    started = rig(
        """
        @bridge.filter("**")
        def grow(record):
            record["x"] = "y" * (1 << 20)
            return record
    """,
        rpc__max_message_bytes="1MiB",
    )
    reply = started.process(b"ad", events(*({} for _ in range(20))))
    assert len(reply.streams[b"ad"]) > 20 << 20


def test_reflection_tells_the_contract(shared):
    database = ProtoReflectionDescriptorDatabase(shared.channel)
    assert set(database.get_services()) == {
        "bridge.rpc.v1.Sidecar",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    file = database.FindFileContainingSymbol("bridge.rpc.v1.Sidecar")
    assert [method.name for method in file.service[0].method] == ["Describe", "Process"]


def test_health_of_an_unknown_service(shared):
    health = health_pb2_grpc.HealthStub(shared.channel)
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watch = health.Watch(health_pb2.HealthCheckRequest(service="nobody"))
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()
