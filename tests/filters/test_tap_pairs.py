"""What a tap takes of a run: events, each with what became of it; and that it changes nothing."""

import collections
import json
import random

import pytest
from packed import entry, pack, unpack

from bridge.pipeline import Tap

CALLS = collections.Counter()

# One thing that may become of an event a branch, in each of the shapes that filters have.
EVERYTHING = """
from test_tap_pairs import CALLS
def act(event):
    CALLS[event.record["id"]] += 1
    record = event.record
    match record["do"]:
        case "drop": return None
        case "false": return False
        case "fail": raise ValueError("no good")
        case "reject": raise bridge.Reject("not wanted")
        case "spoil": record["x"] = 1; raise ValueError("after it changed the record")
        case "retag": return bridge.Event("other", event.time, record)
        case "later": return bridge.Event(event.tag, bridge.EventTime(7, 8) if hasattr(bridge, "EventTime") else 7, record)
        case "fan": return [bridge.Event(event.tag, event.time, record | {"n": n}) for n in range(3)]
        case "split": return [event, bridge.Event("copies", event.time, record | {"copy": True})]
        case "change": record["x"] = 1; del record["gone"]
        case "unencodable": record["x"] = object()
    return event
@bridge.filter("each")
def each(event: bridge.Event): return act(event)
@bridge.filter("async")
async def asynchronous(event: bridge.Event): return act(event)
@bridge.batch("batch")
def batch(events: list[bridge.Event]):
    made = []
    for event in events:
        if event.record["do"] in ("fail", "reject", "spoil") and len(events) > 1:
            event.record["do"] = "drop"
        made.append(act(event))
    return made
"""
ACTS = ["drop", "false", "fail", "reject", "spoil", "retag", "later", "fan", "split", "change",
        "unencodable", "pass"]  # fmt: skip


@pytest.fixture(autouse=True)
def no_calls():
    CALLS.clear()


def lines(pipeline, tag, entries, count, *, wanted=100, errors=False):
    """Return a run's outcome and what a tap took of it."""
    tap = Tap(wanted, errors=errors)
    outcome = pipeline.run(tag, entries, count, taps=[tap])
    return outcome, [json.loads(line) for line in tap.lines]


def results(line):
    return [(result["tag"], result["record"]) for result in line["results"]]


@pytest.mark.parametrize("tag", ["each", "async"])
def test_each_event_stands_beside_what_became_of_it(build, tag):
    pipeline = build(EVERYTHING)
    records = [{"id": i, "do": do, "gone": 1} for i, do in enumerate(ACTS)]
    outcome, seen = lines(pipeline, tag, pack(records), len(records))
    assert [line["record"] for line in seen] == records, (
        "as they came, whatever a filter did to them"
    )
    by_act = {line["record"]["do"]: line for line in seen}
    assert {act: line["outcome"] for act, line in by_act.items()} == {
        "drop": "dropped", "false": "dropped", "fail": "error", "reject": "error", "spoil": "error",
        "retag": "changed", "later": "changed", "fan": "changed", "split": "changed",
        "change": "changed", "unencodable": "error", "pass": "unchanged",
    }  # fmt: skip
    for act, line in by_act.items():
        record = line["record"]
        assert results(line) == {
            "retag": [("other", record)],
            "later": [(tag, record)],
            "fan": [(tag, record | {"n": n}) for n in range(3)],
            "split": [(tag, record), ("copies", record | {"copy": True})],
            "change": [(tag, {"id": record["id"], "do": "change", "x": 1})],
            "pass": [(tag, record)],
        }.get(act, []), act
    assert by_act["later"]["results"][0]["time"].startswith("1970-01-01T00:00:07")
    assert {
        act: (line["errors"][0]["class"], line["errors"][0]["filter"])
        for act, line in by_act.items()
        if line["errors"]
    } == {
        "fail": ("ValueError", "each" if tag == "each" else "asynchronous"),
        "reject": ("Reject", "each" if tag == "each" else "asynchronous"),
        "spoil": ("ValueError", "each" if tag == "each" else "asynchronous"),
        "unencodable": ("Unencodable", None),
    }
    assert by_act["reject"]["errors"][0]["message"] == "not wanted"
    assert outcome.errors == sum(line["outcome"] == "error" for line in seen)
    assert outcome.dropped == sum(line["outcome"] == "dropped" for line in seen)


def test_a_batch_is_paired_by_what_each_result_was_made_of(build):
    pipeline = build(EVERYTHING)
    records = [
        {"id": i, "do": do, "gone": 1}
        for i, do in enumerate(["drop", "change", "retag", "pass"] * 200)
    ]
    outcome, seen = lines(pipeline, "batch", pack(records), len(records))
    assert len(seen) == 100
    for line in seen:
        record = line["record"]
        assert record == records[record["id"]]
        assert (
            results(line)
            == {
                "drop": [],
                "change": [("batch", {"id": record["id"], "do": "change", "x": 1})],
                "retag": [("other", record)],
                "pass": [("batch", record)],
            }[record["do"]]
        )
    assert outcome.received == 800


@pytest.mark.parametrize("tag", ["each", "async", "batch", "nothing"])
@pytest.mark.parametrize("errors", [False, True])
def test_a_tapped_run_is_the_same_run(build, tag, errors):
    pipeline = build(EVERYTHING)
    records = [
        {"id": i, "do": random.choice([act for act in ACTS if act != "unencodable"]), "gone": 1}
        for i in range(1000)
    ]
    entries = pack(records)
    plain = pipeline.run(tag, entries, 1000)
    assert set(CALLS.values()) <= {1}
    CALLS.clear()
    tapped, seen = lines(pipeline, tag, entries, 1000, errors=errors)
    assert seen or (errors and tag in ("nothing", "batch"))
    assert set(CALLS.values()) <= {1}, "no event went through a function twice"
    assert sum(CALLS.values()) == (0 if tag == "nothing" else 1000)

    def shape(outcome):
        return (
            outcome.received,
            outcome.dropped,
            outcome.errors,
            [(s.tag, s.count, s.error, unpack(s.entries)) for s in outcome.streams],
            [timing[2:] for timing in outcome.filters],
        )

    assert shape(tapped) == shape(plain)


@pytest.mark.parametrize("wanted", [1, 3, 10, 100])
@pytest.mark.parametrize("count", [1000, None, 10, 5000])
def test_as_many_as_are_wanted_at_most_whatever_the_hint(build, wanted, count):
    pipeline = build(EVERYTHING)
    entries = pack([{"id": i, "do": "pass"} for i in range(1000)])
    taken = [lines(pipeline, "each", entries, count, wanted=wanted)[1] for _ in range(20)]
    assert max(map(len, taken)) <= wanted
    assert any(taken), "a hint that is too high may leave a tap with none, but not for ever"
    if count == 1000:
        assert all(len(seen) == wanted for seen in taken)
        places = {line["record"]["id"] // 256 for seen in taken for line in seen}
        assert len(places) > 1, "not always the first of a chunk"


def test_errors_alone(build):
    pipeline = build(EVERYTHING)
    entries = pack([{"id": i, "do": "fail" if i in (300, 999) else "pass"} for i in range(1000)])
    _, seen = lines(pipeline, "each", entries, 1000, errors=True)
    assert [line["record"]["id"] for line in seen] == [300, 999]
    _, seen = lines(pipeline, "each", entries, 1000, errors=True, wanted=1)
    assert [line["record"]["id"] for line in seen] == [300]


def test_events_that_are_run_alone_and_events_that_are_not_run(build):
    pipeline = build(EVERYTHING)
    entries = pack([{"id": i, "do": "fail" if i == 3 else "pass"} for i in range(6)])
    tap = Tap(2, errors=False)
    pipeline.run("each", entries, 6, progress=lambda index: None, taps=[tap])
    assert len(tap.lines) == 2
    tap = Tap(1, errors=True)
    pipeline.reject("each", entries, 6, 4, "WorkerKilled", "it was killed", 3, [tap])
    (line,) = map(json.loads, tap.lines)
    assert line["record"] == {"id": 4, "do": "pass"}
    assert line["outcome"] == "error"
    assert line["errors"] == [
        {"class": "WorkerKilled", "message": "it was killed", "filter": None, "traceback": None}
    ]


def test_a_document_is_shown_as_the_filters_see_it(build):
    pipeline = build(
        "@bridge.filter('t')\ndef f(document): return document | {'y': 2}", payload="json"
    )
    entries = pack([{"message": '{"x": 1}', "offset": 5}, {"message": "no json", "offset": 6}])
    _, (good, bad) = lines(pipeline, "t", entries, 2)
    assert good["record"] == {"message": {"x": 1}, "offset": 5}
    assert results(good) == [("t", {"message": {"x": 1, "y": 2}, "offset": 5})]
    assert bad["record"] == {"message": "no json", "offset": 6}
    assert bad["errors"][0]["class"] == "NotJson"


def test_long_records_are_cut_and_say_so(build):
    pipeline = build("@bridge.filter('t')\ndef f(record): return record | {'y': 2}")
    large = {"a": 1, "text": "é" * 100_000, "blob": b"x" * 50_000, "list": [1] * 50_000, "z": 1}
    outcome, (line,) = lines(pipeline, "t", pack([large]), 1)
    assert line["truncated"] is True
    assert line["record"]["a"] == 1
    assert line["record"]["text"].startswith("ééé")
    assert line["record"]["text"].endswith("… (200,000 bytes)")
    assert line["record"]["…"] == "3 more fields"
    assert line["outcome"] == "changed"
    assert len(json.dumps(line, ensure_ascii=False)) < 40_000
    assert outcome.streams[0].count == 1
    _, (line,) = lines(pipeline, "nothing", pack([large]), 1)
    assert (line["outcome"], line["truncated"]) == ("unchanged", True)


def test_many_results_of_one_event_are_bounded(build):
    pipeline = build(
        "@bridge.filter('t')\ndef f(record): return [dict(record, n=n) for n in range(5000)]"
    )
    outcome, (line,) = lines(pipeline, "t", pack([{"x": 1}]), 1)
    assert (len(line["results"]), line["results_left_out"]) == (16, 4984)
    assert sum(s.count for s in outcome.streams) == 5000


@pytest.mark.parametrize("odd", [
    b"\x81\xa1k\xa3\xff\xfe\x80", b"\x81\xa2\xff\xfe\x01", b"\x81\xa1k\xcb\x7f\xf8" + bytes(6),
    b"\x81\x05\xa1v", b"\x81\xc0\xa1v", b"\x81\x92\x01\x02\xa1v", b"\x81\xa1k\xd4\x2a\x01",
    b"\x81\xa1k\xd7\xff" + bytes(8), b"\x81\xa1k\xd7\x00" + bytes(8), b"\x81\xa1k\xcf" + b"\xff" * 8,
    b"\x82\xa1k\x01\xa1k\x02", b"\x81\xa1k" + b"\x91" * 5000 + b"\x01", b"\xdf\x00\x00\x00\x00",
    b"\x81\xa1k\xda\x30\x00" + b"\xff" * 0x3000, b"\x81\xa2\xff\xff\xda\x30\x00" + b"\xff" * 0x3000,
])  # fmt: skip
@pytest.mark.parametrize("payload", ["raw", "json"])
def test_whatever_a_record_holds(build, odd, payload):
    pipeline = build("@bridge.filter('same')\ndef same(record): return record", payload=payload)
    entries = entry({"id": 1}) + b"\x92\x07" + odd
    for tag in ("same", "nothing"):
        outcome, seen = lines(pipeline, tag, entries, 2)
        assert len(seen) == outcome.received == 2
        assert not any("trouble" in line for line in seen)
        if payload == "raw" and odd[0] != 0x82:  # a key twice: a dict has it once
            assert [line["outcome"] for line in seen] == ["unchanged"] * 2


def test_a_failure_to_look_costs_no_event(build, monkeypatch):
    monkeypatch.setattr("bridge.pipeline.tap.shown", lambda *_, **__: 1 / 0)
    outcome, seen = lines(build(EVERYTHING), "each", pack([{"id": 1, "do": "pass"}]), 1)
    assert seen == [{"trouble": "ZeroDivisionError('division by zero')"}]
    assert outcome.streams[0].count == 1
