"""Chunks: hints, ranges, what is no event, dead letters, events that are run alone."""

import msgspec
import pytest
from packed import TIME, entry, pack, unpack

from bridge.errors import NotAnEvent, Retry
from bridge.events import EventTime
from bridge.loading import load
from bridge.pipeline import Pipeline

FILTERS = """
import os
class View(msgspec.Struct):
    n: int
@bridge.filter("dict")
def identity(record): return record
@bridge.filter("view")
def view(view: View) -> bool: return True
@bridge.filter("event")
def event(event: bridge.Event): return event
@bridge.batch("batch")
def batch(records): return records
@bridge.filter("asynchronous")
async def asynchronous(record): return record
"""
TAGS = ["dict", "view", "event", "batch", "asynchronous", "nothing"]


@pytest.fixture
def pipeline(build):
    return build(FILTERS)


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("events", [0, 1, 15, 16, 255, 256, 257, 1000])
def test_any_number_of_events_whatever_the_hint(pipeline, tag, events):
    entries = pack([{"n": 1}]) * events
    for count in [events, None, 0, events + 1, 2**40, -1]:
        for given in (entries, bytearray(entries), memoryview(bytearray(entries))):
            outcome = pipeline.run(tag, given, count)
            assert b"".join(s.entries for s in outcome.streams) == entries
            assert outcome.received == sum(s.count for s in outcome.streams) == events
            assert len(outcome.streams) == bool(events)


def test_more_events_than_16_bits_count(pipeline):
    entries = pack([{"n": 1}]) * 70_000
    for tag in TAGS:
        (stream,) = pipeline.run(tag, entries, 70_000).streams
        assert (bytes(stream.entries) == entries, stream.count) == (True, 70_000)


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, None), (0, 0), (0, 3), (3, 5), (599, 600), (2, None), (598, 10_000), (900, None)],
)
def test_ranges(pipeline, tag, start, stop):
    entries = [entry({"n": n}) for n in range(600)]
    outcome = pipeline.run(tag, b"".join(entries), 600, start=start, stop=stop)
    assert b"".join(s.entries for s in outcome.streams) == b"".join(entries[start:stop])
    assert outcome.received == len(entries[start:stop])


GOOD = entry({"n": 1})
NO_EVENTS = {
    "nil": (b"\xc0", 1, "not an array"),
    "an integer": (b"\x05", 1, "not an array"),
    "an array of one": (b"\x91\x05", 1, "not an array"),
    "an array of three": (b"\x93\x05\x80\x80", 1, "not an array"),
    "a record that is text": (b"\x92\x05\xa1a", 1, "not a map"),
    "a record that is nil": (b"\x92\x05\xc0", 1, "not a map"),
    "a record that is an array": (b"\x92\x05\x91\x01", 1, "not a map"),
    "a time that is text": (b"\x92\xa1a\x80", 1, "neither an integer nor an EventTime"),
    "a time that is nil": (b"\x92\xc0\x80", 1, "neither"),
    "a time that is a map": (b"\x92\x80\x80", 1, "neither"),
    "a time of another ext": (b"\x92\xd7\x05" + bytes(8) + b"\x80", 1, "neither"),
    "a time of 4 bytes": (b"\x92\xd6\x00" + bytes(4) + b"\x80", 1, "neither"),
    "not MessagePack": (b"\xc1", 1, "0xc1"),
    "not MessagePack within": (b"\x92\x05\x81\xa1a\xc1", 1, "0xc1"),
    "cut": (GOOD[:-1], 1, "ends in the middle"),
    "cut in a header": (b"\x92\x05\xde\x00", 1, "ends in the middle"),
    "a huge array": (b"\x92\x05\x81\xa1a\xdd\xff\xff\xff\xff", 1, "ends in the middle"),
    "a huge map": (b"\x92\x05\xdf\xff\xff\xff\xff", 1, "ends in the middle"),
    "a huge text": (b"\x92\x05\x81\xa1a\xdb\xff\xff\xff\xff", 1, "ends in the middle"),
    "a huge entry": (b"\xdd\xff\xff\xff\xff", 1, "ends in the middle"),
    "deep and cut": (b"\x92\x05\x81\xa1a" + b"\x91" * 2000, 1, "ends in the middle"),
}


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("case", NO_EVENTS)
def test_what_is_no_event_is_named_with_its_place(pipeline, tag, case):
    bad, _, says = NO_EVENTS[case]
    for before in (1, 300):
        for after in (b"", GOOD) if not says.startswith("ends") else (b"",):
            entries = GOOD * before + bad + after
            for count in (None, before + 1 + bool(after), 7):
                with pytest.raises(NotAnEvent) as raised:
                    pipeline.run(tag, entries, count)
                message = str(raised.value)
                assert message.startswith(f"event {before} at byte {before * len(GOOD)}: ")
                assert says in message


def test_a_view_may_not_hide_what_is_no_event(build):
    pipeline = build(
        "class V(msgspec.Struct): n: int\n@bridge.filter('t')\ndef f(v: V): return True\n"
    )
    for bad in (b"\x92\x05\xa1a", b"\x92\x05\x91\x01"):
        with pytest.raises(NotAnEvent):
            pipeline.run("t", GOOD + bad, 2)


def test_a_view_that_does_not_fit_fails_with_the_field(run):
    result = run(
        """
        class In(msgspec.Struct):
            price: float
        class V(msgspec.Struct):
            inner: In
        @bridge.filter("t")
        def f(v: V) -> bool: return v.inner.price > 0
        """,
        [{"inner": {"price": 1}}, {"inner": {"price": "x"}}, {}, {"inner": {"price": 0}}],
    )
    assert result.records() == [{"inner": {"price": 1}}]
    assert [(one["class"], one["message"]) for one in result.errors] == [
        ("ValidationError", "Expected `float`, got `str` - at `$.inner.price`"),
        ("ValidationError", "Object missing required field `inner`"),
    ]
    assert result.counts == (4, 1, 2)


def test_a_view_of_what_another_filter_made(run):
    result = run(
        """
        class V(msgspec.Struct):
            a: int
            b: bytes = b""
        @bridge.filter("t")
        def first(record):
            record["a"] = record.pop("z")
            return record
        @bridge.filter("t")
        def second(v: V):
            v.a += 1
            return v
        """,
        [{"z": 1, "b": b"\xff"}, {"z": "x"}, {"z": 2, "o": msgspec.msgpack.Ext(5, b"x")}],
    )
    (first, second) = result.records()
    assert (first, second["a"]) == ({"a": 2, "b": b"\xff"}, 3)
    assert (second["o"].code, second["o"].data) == (5, b"x")
    assert [one["filter"] for one in result.errors] == ["second"]


def test_a_dead_letter(run):
    result = run(
        """
        @bridge.filter("t")
        def first(record):
            record["changed"] = True
            return record

        def helper(record):
            return record["missing"]

        @bridge.filter("t", name="second one")
        def second(record):
            return helper(record)
        """,
        [{"n": 1}],
        attempts=3,
    )
    (stream,) = result.outcome.streams
    assert (stream.tag, stream.error, stream.count) == ("error.t", True, 1)
    assert bytes(stream.entries).startswith(b"\x92\xd7\x00" + TIME.to_bytes())
    (letter,) = result.letters
    where = letter["error"].pop("traceback")
    assert letter == {
        "error": {
            "class": "KeyError",
            "message": "'missing'",
            "filter": "second one",
            "attempts": 3,
        },
        "tag": "t",
        "time": "2023-11-14T22:13:20.123456789Z",
        "record": {"n": 1},
    }
    lines = where.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].endswith('10_filters.py", line 17, in second')
    assert any(line.endswith("line 13, in helper") for line in lines)
    assert lines[-1] == "KeyError: 'missing'"


@pytest.mark.parametrize(
    ("time", "shown"),
    [
        (EventTime(1_700_000_000, 5), "2023-11-14T22:13:20.000000005Z"),
        (1_700_000_000, "2023-11-14T22:13:20Z"),
        (0, "1970-01-01T00:00:00Z"),
        (1_700_000_000.5, "2023-11-14T22:13:20.500000000Z"),
        (2**63, str(2**63)),
        (-(2**63), str(-(2**63))),
    ],
)
def test_the_time_in_a_dead_letter(run, time, shown):
    result = run("@bridge.filter('t')\ndef f(r): 1 / 0\n", entry({}, time))
    assert result.letters[0]["time"] == shown


def test_dead_letters_are_safe_to_send(run):
    result = run(
        """
        class Strange(Exception):
            def __str__(self): raise RuntimeError
        @bridge.filter("t")
        def f(record):
            if record["n"] == 0: raise ValueError(chr(0xdcff))
            if record["n"] == 1: raise ValueError("x" * 10**6)
            if record["n"] == 2: raise Strange
            if record["n"] == 3: f({"n": 3})
            try:
                1 / 0
            except ZeroDivisionError as error:
                raise ValueError("outer") from error
        """,
        [{"n": n} for n in range(5)],
    )
    surrogate, long, strange, recursion, chained = result.errors
    assert surrogate["message"] == "\\udcff"
    assert len(long["message"]) < 2_100
    assert len(long["traceback"]) < 8_100
    assert strange["message"] == "(its message cannot be shown)"
    assert recursion["class"] == "RecursionError"
    assert "ZeroDivisionError" in chained["traceback"]
    assert chained["traceback"].endswith("ValueError: outer\n")


def test_a_rejected_event_has_its_reason_and_no_traceback(run):
    result = run("@bridge.filter('t')\ndef f(r): raise bridge.Reject('no price')\n", [{}])
    assert result.errors == [
        {"class": "Reject", "message": "no price", "filter": "f", "traceback": None, "attempts": 1}
    ]


def test_reject_sends_one_event_to_the_error_stream(pipeline):
    deep = entry(b"\x81\xa1x" + b"\x91" * 5000 + b"\x01")
    entries = GOOD + deep + GOOD
    outcome = pipeline.reject("dict", entries, 3, 1, "WorkerKilled", "by SIGSEGV", 4)
    (stream,) = outcome.streams
    assert (stream.tag, stream.count, stream.error) == ("error.dict", 1, True)
    assert deep[11:] in bytes(stream.entries)
    assert (outcome.received, outcome.errors) == (1, 1)
    ((_, letter),) = unpack(
        pipeline.reject("dict", entries, None, 2, "C", "m", 4).streams[0].entries
    )
    assert letter["record"] == {"n": 1}
    assert letter["error"] == {
        "class": "C", "message": "m", "filter": None, "traceback": None, "attempts": 4,
    }  # fmt: skip
    with pytest.raises(NotAnEvent):
        pipeline.reject("dict", entries, 3, 3, "C", "m", 4)


@pytest.mark.parametrize("tag", ["dict", "view", "event", "asynchronous", "nothing"])
def test_careful_runs_tell_which_event_comes(pipeline, tag):
    entries = [entry({"n": n}) for n in range(20)]
    seen = []
    outcome = pipeline.run(tag, b"".join(entries), 20, start=5, stop=9, progress=seen.append)
    assert seen == [5, 6, 7, 8]
    assert outcome.received == 4
    (stream,) = outcome.streams
    assert bytes(stream.entries) == b"".join(entries[5:9])
    assert all(came == 4 for _, _, came, _, _ in outcome.filters)


def test_a_careful_run_is_at_the_event_that_it_told(build):
    pipeline = build(
        "@bridge.filter('t')\ndef f(r):\n    if r['n'] == 3: raise SystemExit\n    return r\n"
    )
    seen = []
    with pytest.raises(SystemExit):
        pipeline.run("t", pack([{"n": n} for n in range(9)]), 9, progress=seen.append)
    assert seen[-1] == 3


def test_a_batch_cannot_be_run_carefully(pipeline):
    seen = []
    outcome = pipeline.run("batch", GOOD * 5, 5, start=1, progress=seen.append)
    assert seen == []
    assert outcome.received == 4


def test_numbers_of_filters_add_up_over_slices(run):
    result = run(
        """
        @bridge.filter("t")
        def f(r):
            if r["n"] % 10 == 0: return None
            if r["n"] % 10 == 1: raise ValueError
            return r
        @bridge.filter("t")
        def g(r): return r
        """,
        [{"n": n} for n in range(2000)],
    )
    assert [(name, *numbers) for name, _, *numbers in result.outcome.filters] == [
        ("f", 2000, 200, 200),
        ("g", 1600, 0, 0),
    ]
    assert result.counts == (2000, 200, 200)
    assert [one["n"] for one in result.records()] == [n for n in range(2000) if n % 10 > 1]
    assert [one["record"]["n"] for one in result.letters] == list(range(1, 2000, 10))


def test_chain(pipeline):
    (stage,) = pipeline.chain("dict")
    assert (stage.name, stage.index) == ("identity", 0)
    assert pipeline.chain("nothing") == ()
    for number in range(5000):
        pipeline.chain(f"tag.{number}")
    assert len(pipeline._plans) <= 1024


def test_async_filters_need_a_gather(tmp_path):
    (tmp_path / "a.py").write_text("import bridge\n@bridge.filter('t')\nasync def f(r): return r\n")
    with pytest.raises(ValueError, match="f is async def"):
        Pipeline(load(tmp_path))


def test_retry_leaves_nothing_behind(build):
    pipeline = build(
        "seen = []\n@bridge.filter('t')\ndef f(r):\n"
        "    seen.append(1)\n    if len(seen) == 400: raise bridge.Retry(0.5)\n    return r\n"
    )
    with pytest.raises(Retry):
        pipeline.run("t", GOOD * 500, 500)
    assert pipeline.run("t", GOOD * 500, 500).received == 500
