"""The harness: events in every form in, what became of them out, in process and elsewhere."""

import gzip
import json
import struct

import msgpack
import pytest

import bridge
from bridge.errors import LoadError, NotAnEvent, ProtocolError, SampleError
from bridge.events import EventTime
from bridge.forward import codec, packed_forward
from bridge.testing import DeadLetter, FilterCounts, Harness
from bridge.testing.case import TIME

FILTERS = """
    seen = bridge.counter("seen_total", "Events.", labels=["do"])
    size = bridge.histogram("size_bytes", "Sizes.", buckets=(1, 10))

    @bridge.filter("t.**")
    def act(event: bridge.Event):
        record = event.record
        do = record.get("do", "pass")
        seen.inc(do=do)
        size.observe(record.get("size", 5))
        if do == "drop":
            return None
        if do == "reject":
            raise bridge.Reject("not wanted")
        if do == "fail":
            raise ValueError("no good")
        if do == "retry":
            raise bridge.Retry(3)
        if do == "retag":
            event.tag = "other"
        return event

    @bridge.filter("t.a")
    async def mark(record: dict) -> dict:
        await asyncio.sleep(0)
        record["marked"] = True
        return record
"""
RECORDS = [{"do": do} for do in ("pass", "drop", "reject", "fail", "retag", "pass")]


@pytest.fixture(scope="module", params=[False, True], ids=["in process", "sidecar"])
def harness(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("filters")
    import textwrap

    text = "import asyncio\nimport bridge\n" + textwrap.dedent(FILTERS)
    (folder / "f.py").write_text(text)
    with Harness(folder, sidecar=request.param) as harness:
        yield harness


def test_what_became_of_events_is_the_same_in_process_and_through_a_sidecar(harness):
    assert harness.filters == [("act", "t.**"), ("mark", "t.a")]
    result = harness.feed("t.a", RECORDS, time=EventTime(5, 6))
    passed = {"do": "pass", "marked": True}
    assert result.events == [
        bridge.Event("t.a", EventTime(5, 6), passed),
        bridge.Event("t.a", EventTime(5, 6), passed),
        bridge.Event("other", EventTime(5, 6), {"do": "retag"}),
    ]
    assert result.records == [passed, passed, {"do": "retag"}]
    assert (result.received, result.dropped, result.retry) == (6, 1, None)
    reject, failure = result.dead_letters
    assert reject == DeadLetter(
        "Reject", "not wanted", "act", None, 1, "t.a", EventTime(5, 6), {"do": "reject"}
    )
    assert (reject.reason, failure.reason) == ("not wanted", "ValueError: no good")
    assert 'raise ValueError("no good")' in failure.traceback
    assert result.filters == {"act": FilterCounts(6, 1, 2), "mark": FilterCounts(2)}
    assert result.metrics == {
        "seen_total": 6,
        **{f"seen_total{{do={do}}}": 1 for do in ("drop", "reject", "fail", "retag")},
        "seen_total{do=pass}": 2,
        "size_bytes_bucket": 12,
        "size_bytes_bucket{le=10.0}": 6,
        "size_bytes_bucket{le=+Inf}": 6,
        "size_bytes_sum": 30,
        "size_bytes_count": 6,
    }
    assert result.metrics["unseen_total"] == 0
    assert set(result.entries) == {"t.a", "other", "error.t.a"}
    assert len(codec.decode_entries(result.entries["error.t.a"])) == 2


def test_metrics_are_those_of_one_call(harness):
    assert (
        harness.feed("t.b", {"do": "pass", "size": 100}).metrics["size_bytes_bucket{le=10.0}"] == 0
    )
    result = harness.feed("t.b", {"size": 1})
    assert result.metrics["seen_total"] == result.metrics["size_bytes_bucket{le=1.0}"] == 1
    assert result.filters == {"act": FilterCounts(1)}
    assert result.events == [bridge.Event("t.b", TIME, {"size": 1})]


def test_what_ran_before_is_not_counted(harness):
    harness.run(harness.chunk("t.b", [(TIME, {"do": "pass"})]))
    result = harness.feed("t.b", {"do": "drop"})
    assert result.metrics["seen_total"] == 1
    assert result.filters == {"act": FilterCounts(1, 1)}


def test_a_batch_that_is_cut_over_workers_comes_out_as_one_that_is_not(folder):
    path = folder(FILTERS)
    records = [{"do": RECORDS[n % 6]["do"], "n": n, "pad": "x" * 60} for n in range(6_000)]
    with Harness(path) as one, Harness(path, sidecar=True, workers=2) as other:
        assert other.feed("t.a", records) == one.feed("t.a", records)


def test_retry_is_seen_and_nothing_comes_out(harness):
    result = harness.feed("t.a", [{"do": "pass"}, {"do": "retry"}])
    assert (result.retry, result.events, result.received) == (3.0, [], 0)
    result = harness.feed("t.a", {"do": "pass"})
    assert (result.retry, len(result.events)) == (None, 1)


def test_a_record_passes_byte_for_byte_where_no_filter_is(harness):
    odd = b"\x92\x05\x81\xa1k\xa3\xff\xfe\x80"
    message = b"".join(packed_forward("else", odd))
    assert harness.feed_forward(message).entries == {"else": odd}


STAMP = b"\xd7\x00" + struct.pack(">II", 7, 8)
ENTRY = b"\x92" + STAMP + msgpack.packb({"n": 1})
SECOND = b"\x92" + STAMP + msgpack.packb({"n": 2})


def option(**keys):
    return msgpack.packb(keys)


FORWARD = {
    "Message": (b"\x93\xa3t.b" + ENTRY[1:], 1),
    "Message with an option": (b"\x94\xa3t.b" + ENTRY[1:] + option(chunk="x"), 1),
    "Forward": (b"\x92\xa3t.b\x92" + ENTRY + SECOND, 2),
    "PackedForward": (b"".join(packed_forward("t.b", ENTRY + SECOND, count=2, chunk_id="x")), 2),
    "Compressed gzip": (
        b"".join(packed_forward("t.b", gzip.compress(ENTRY + SECOND), compressed="gzip")),
        2,
    ),
    "Compressed gzip, two members": (
        b"".join(
            packed_forward("t.b", gzip.compress(ENTRY) + gzip.compress(SECOND), compressed="gzip")
        ),
        2,
    ),
    "Compressed zstd": (
        b"".join(packed_forward("t.b", codec.compress(ENTRY + SECOND, "zstd"), compressed="zstd")),
        2,
    ),
    "two messages": (b"".join(packed_forward("t.b", ENTRY)) + b"\x93\xa3t.b" + SECOND[1:], 2),
}


@pytest.mark.parametrize("mode", FORWARD)
def test_forward_messages_of_every_mode(harness, mode):
    message, count = FORWARD[mode]
    assert harness.feed_forward(message).events == [
        bridge.Event("t.b", EventTime(7, 8), {"n": n + 1}) for n in range(count)
    ]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (b"", "the message is cut off: 0 bytes"),
        (FORWARD["Forward"][0][:-1], "the message is cut off: "),
        (b"GET / HTTP/1.1\r\n", "Forward"),
        (b"".join(packed_forward("t.b", b"\x01")), "event 0 at byte 0"),
        (b"".join(packed_forward("t.b", b"\x1f\x8b", compressed="gzip")), "gzip data is cut off"),
    ],
)
def test_what_is_no_message_is_refused(harness, message, says):
    with pytest.raises(ProtocolError, match=says):
        harness.feed_forward(message)


def test_files(harness, tmp_path):
    records = [{"n": n} for n in range(5)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    (tmp_path / "a.csv").write_text("n\n1\n2\n")
    (tmp_path / "forward.msgpack").write_bytes(FORWARD["PackedForward"][0])
    result = harness.feed_file(tmp_path / "a.jsonl", tag="t.b", chunk=2)
    assert result.records == records
    assert {event.time for event in result.events} == {TIME}
    assert result.filters["act"].events == result.metrics["seen_total"] == 5
    assert harness.feed_file(tmp_path / "a.csv", tag="t.b").records == [{"n": "1"}, {"n": "2"}]
    (first, _) = harness.feed_file(tmp_path / "forward.msgpack").events
    assert first == bridge.Event("t.b", EventTime(7, 8), {"n": 1})
    with pytest.raises(ValueError, match="have no tag: give one"):
        harness.feed_file(tmp_path / "a.jsonl")
    with pytest.raises(SampleError, match="No such file"):
        harness.feed_file(tmp_path / "b.jsonl")


def test_records_that_cannot_be_sent(harness):
    with pytest.raises(TypeError, match="a record is a dict, not a int"):
        harness.feed("t.b", [1])
    with pytest.raises(TypeError):
        harness.feed("t.b", {"x": object()})


@pytest.mark.parametrize("sidecar", [False, True])
def test_documents_parameters_and_mistakes(folder, sidecar):
    path = folder("""
        @bridge.filter("a")
        class Add:
            def __init__(self, amount):
                self.amount = amount
            def __call__(self, record: dict) -> dict:
                record["n"] += self.amount
                return record
    """)
    options = {"payload": "json", "payload_key": "log", "sidecar": sidecar}
    with Harness(path, parameters={"Add": {"amount": 2}}, workers=2, **options) as harness:
        assert harness.feed("a", [{"n": 1}, (EventTime(1), {"n": 2})]).records == [
            {"n": 3},
            {"n": 4},
        ]
        result = harness.feed("a", '{"n": ')
        assert result.dead_letters[0].reason.startswith("NotJson: the field 'log' holds no JSON")
        assert result.dead_letters[0].record == {"log": '{"n": '}
        (path.parent / "a.jsonl").write_text('{"n": 1}\n{"log": "{\\"n\\": 2}"}\n')
        result = harness.feed_file(path.parent / "a.jsonl", tag="a")
        assert result.records == [{"n": 3}, {"n": 4}]
        assert b'{"n":3}' in result.entries["a"]
    with pytest.raises(ExceptionGroup) as raised:
        Harness(path, sidecar=sidecar)
    (one,) = raised.value.exceptions
    assert type(one) is LoadError
    assert (one.file, one.line) == (path / "10_filters.py", 5)
    assert "its parameters in the settings do not fit its __init__" in one.message


def test_several_folders_do_not_get_into_each_others_way(folder):
    text = """
        seen = bridge.counter("seen_total", "{help}")
        class View(msgspec.Struct):
            n: "Number"
        Number = int
        @bridge.filter("a")
        def fail(view: View) -> bool:
            seen.inc()
            raise ValueError("no good")
    """
    folders = [folder(text.replace("{help}", name), name=name) for name in ("one", "two")]
    with Harness(folders[0]) as one, Harness(folders[1]) as two:
        for harness, path in ((one, folders[0]), (two, folders[1]), (one, folders[0])):
            result = harness.feed("a", {"n": 1})
            assert result.metrics["seen_total"] == 1
            assert f'File "{path}/10_filters.py"' in result.dead_letters[0].traceback


async def test_async_filters_from_within_an_event_loop(folder):
    path = folder("""
        @bridge.filter("a")
        class Later:
            def __init__(self):
                self.lock = asyncio.Lock()
            async def __call__(self, record: dict) -> dict:
                async with self.lock:
                    await asyncio.sleep(0)
                return record | {"later": True}
            async def close(self):
                async with self.lock:
                    raise OSError("closed")
    """)
    harness = Harness(path)
    assert harness.feed("a", [{}, {}]).records == [{"later": True}] * 2
    with pytest.raises(ExceptionGroup) as raised:
        harness.close()
    assert [str(error) for error in raised.value.exceptions] == ["closed"]


def test_entries_that_are_no_events_are_told_as_such(harness):
    with pytest.raises(NotAnEvent):
        harness.feed_forward(b"".join(packed_forward("t.b", ENTRY + b"\x92\x01")))
