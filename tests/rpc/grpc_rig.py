"""A real gRPC client of a sidecar in processes of its own."""

import collections
import time

import grpc
import pytest

from bridge.events import EventTime
from bridge.forward.codec import decode_entries, pack_entries
from bridge.rpc.v1 import sidecar_pb2 as pb
from bridge.rpc.v1 import sidecar_pb2_grpc

# What every client of the service has to set: results may be larger than 4 MiB.
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
LARGE = 4000  # events that are over the size from which batches are cut, with `pad`
PAD = "x" * 60

# One filter for each thing that a filter may do with an event, told by the event.
EVERYTHING = """
@bridge.filter("**")
def act(event: bridge.Event):
    record = event.record
    match record.get("do"):
        case "drop":
            return None
        case "fail":
            raise ValueError("no good")
        case "reject":
            raise bridge.Reject("not wanted")
        case "retag":
            event.tag = "other"
        case "fan":
            return [bridge.Event(event.tag, event.time, record | {"n": n}) for n in range(3)]
        case "split":
            return [event, bridge.Event("copies", event.time, record)]
        case "change":
            record["changed"] = True
    return event
"""


def events(*records):
    """Return packed entries, an event a record, their times a nanosecond apart."""
    return pack_entries([(EventTime(1_700_000_000, i), record) for i, record in enumerate(records)])


def large(**fields):
    """Return a batch that is cut where workers are idle: records of `id`, `pad` and the fields."""
    return events(*({"id": i, "pad": PAD, **fields} for i in range(LARGE)))


class Reply:
    """A ProcessResponse, its streams by tag."""

    def __init__(self, response):
        self.response = response
        self.streams = collections.defaultdict(bytes)
        self.counts = collections.Counter()
        for stream in response.streams:
            assert stream.error == stream.tag.startswith(b"error.")
            self.streams[stream.tag] += stream.entries
            self.counts[stream.tag] += stream.count

    def records(self, tag):
        return [record for _, record in decode_entries(self.streams[tag])]


class Rig:
    """A running sidecar and a channel to it."""

    def __init__(self, sidecar, target, credentials=None):
        self.sidecar = sidecar
        self.target = target
        self.channel = (
            grpc.secure_channel(target, credentials, OPTIONS)
            if credentials
            else grpc.insecure_channel(target, OPTIONS)
        )
        self.stub = sidecar_pb2_grpc.SidecarStub(self.channel)

    def request(self, tag, entries, count=0):
        return pb.ProcessRequest(tag=tag, entries=entries, count=count)

    def process(self, tag, entries, count=0, timeout=60):
        return Reply(self.stub.Process(self.request(tag, entries, count), timeout=timeout))

    def fails(self, tag, entries, timeout=60):
        """Return the error that the call ends with."""
        with pytest.raises(grpc.RpcError) as caught:
            self.process(tag, entries, timeout=timeout)
        return caught.value

    def metric(self, name):
        return self.sidecar.metrics().get(f"fluent_bridge_{name}", 0)

    def wait_for(self, name, value, seconds=30):
        """Wait until a metric has a value."""
        ends = time.monotonic() + seconds
        while (found := self.metric(name)) != value:
            assert time.monotonic() < ends, f"{name} is {found}, not {value}"
            time.sleep(0.05)

    def log(self, event):
        return [line for line in self.sidecar.log() if line["event"] == event]

    def close(self):
        self.channel.close()
