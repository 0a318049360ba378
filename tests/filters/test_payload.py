"""The payload json: functions get the document that stands in a field."""

import json

import pytest
from packed import entry, unpack

FILTERS = """
class View(msgspec.Struct):
    n: int
class Defaulted(msgspec.Struct):
    n: int
    when: typing.Any = None
    by: dict[int, int] = {}
@bridge.filter("dict")
def f_dict(record: dict):
    record["z"] = 1
    return record
@bridge.filter("identity")
def f_identity(record: dict): return record
@bridge.filter("predicate")
def f_predicate(record: dict) -> bool: return record["n"] == 1
@bridge.filter("view")
def f_view(view: View) -> bool: return view.n == 1
@bridge.filter("merge")
def f_merge(view: Defaulted):
    view.n += 1
    return view
@bridge.filter("event")
def f_event(event: bridge.Event):
    event.record["z"] = event.tag
    event.tag = "moved"
    return event
@bridge.filter("late")
def f_late(event: bridge.Event):
    event.time = bridge.EventTime(1)
    return event
@bridge.filter("late")
def f_late_again(event: bridge.Event):
    event.time = 5
    return event
@bridge.filter("several")
def f_several(record): return [{**record, "k": k} for k in range(2)]
@bridge.batch("batch")
def f_batch(records): return [{"n": len(records)} for _ in records]
@bridge.filter("asynchronous")
async def f_async(record): return record
@bridge.filter("then")
def f_0(view: View): return True
@bridge.filter("then")
def f_1(record):
    record["z"] = 1
    return record
@bridge.filter("fails")
def f_fails(record): raise ValueError("x")
@bridge.filter("unencodable")
def f_unencodable(record): return {"x": object()}
"""


@pytest.fixture
def go(build):
    pipeline = build(FILTERS, payload="json")

    def go(tag, *envelopes):
        return pipeline.run(tag, b"".join(map(entry, envelopes)), len(envelopes))

    return go


def records(outcome, tag):
    return [r for s in outcome.streams if s.tag == tag for _, r in unpack(s.entries)]


@pytest.mark.parametrize(
    ("tag", "to", "made"),
    [
        ("dict", "dict", [{"n": 1, "z": 1}]),
        ("identity", "identity", [{"n": 1}]),
        ("merge", "merge", [{"n": 2, "when": None, "by": {}}]),
        ("event", "moved", [{"n": 1, "z": "event"}]),
        ("late", "late", [{"n": 1}]),
        ("several", "several", [{"n": 1, "k": 0}, {"n": 1, "k": 1}]),
        ("batch", "batch", [{"n": 1}]),
        ("asynchronous", "asynchronous", [{"n": 1}]),
        ("then", "then", [{"n": 1, "z": 1}]),
    ],
)
@pytest.mark.parametrize("kind", [str, bytes])
def test_the_result_is_put_back(go, tag, to, made, kind):
    text = '{"n": 1}'
    envelope = {
        "topic": "ads",
        "message": text if kind is str else text.encode(),
        "key": b"\xff",
        7: None,
    }
    out = records(go(tag, envelope), to)
    assert [{**one, "message": None} for one in out] == [{**envelope, "message": None}] * len(made)
    assert [list(one) for one in out] == [list(envelope)] * len(made)
    assert [json.loads(one["message"]) for one in out] == made
    assert {type(one["message"]) for one in out} == {kind}


@pytest.mark.parametrize("tag", ["predicate", "view"])
@pytest.mark.parametrize("others", [[], [{"message": '{"n":2}'}]])
def test_predicates_keep_the_bytes(go, tag, others):
    odd = b'\x83\xa1x\xca\x3f\xc0\0\0\xa7message\xda\x00\x09{ "n":1.}\xa1y\xa1\xff'.replace(
        b"1.}", b"1 }"
    )
    outcome = go(tag, odd, *others)
    (stream,) = outcome.streams
    assert bytes(stream.entries) == entry(odd)
    assert (outcome.received, outcome.dropped) == (1 + len(others), len(others))


def test_new_times(go):
    (stream,) = go("late", {"message": "{}"}).streams
    assert bytes(stream.entries) == b"\x92\x05\x81\xa7message\xa2{}"


@pytest.mark.parametrize(
    ("envelope", "says"),
    [
        ({}, "the record has no field 'message'"),
        ({"message": None}, "holds a NoneType"),
        ({"message": {"n": 1}}, "holds a dict"),
        ({"message": "[1]"}, "Expected `object`, got `array`"),
        ({"message": "n=1"}, "holds no JSON object"),
        ({"message": ""}, "truncated"),
        ({"message": '{"n": NaN}'}, "malformed"),
        ({"message": b'{"n": "\xff"}'}, "utf-8"),
        ({"message": '\ufeff{"n": 1}'}, "malformed"),
    ],
)
@pytest.mark.parametrize("tag", ["dict", "view", "event", "batch"])
def test_what_is_no_json_is_a_dead_letter(go, envelope, says, tag):
    good = {"message": '{"n":1}'}
    outcome = go(tag, good, envelope, good)
    (letter,) = records(outcome, f"error.{tag}")
    assert letter["record"] == envelope
    assert letter["error"]["class"] in {"NotJson", "ValidationError"}
    assert says in letter["error"]["message"]
    assert (outcome.received, outcome.errors) == (3, 1)
    assert sum(s.count for s in outcome.streams) == 3


def test_nothing_is_parsed_where_nothing_matches(go):
    outcome = go("nothing", {"message": "no json"}, {})
    assert [(s.tag, s.count) for s in outcome.streams] == [("nothing", 2)]


@pytest.mark.parametrize(
    "text", [r'{"a":"\ud83d"}', '{"a":' + "[" * 400 + "]" * 400 + "}", '{"a":' + "9" * 40 + "}"]
)
def test_json_that_msgspec_does_not_take(go, text):
    outcome = go("identity", {"message": text})
    (record,) = records(outcome, "identity")
    assert record["message"] == text
    (record,) = records(go("dict", {"message": text}), "dict")
    assert record["message"] == text[:-1] + ',"z":1}'


def test_failures_have_the_whole_record(go):
    envelope = {"a": b"\xff", "message": '{"n":1}'}
    for tag, error_class in {"fails": "ValueError", "unencodable": "TypeError"}.items():
        outcome = go(tag, envelope)
        (letter,) = records(outcome, f"error.{tag}")
        assert letter["error"]["class"] == error_class
        assert letter["record"] == envelope
        assert outcome.errors == 1


def test_another_field(build):
    pipeline = build(
        "@bridge.filter('t')\ndef f(r): return {'was': r}\n", payload="json", payload_key="doc"
    )
    (stream,) = pipeline.run("t", entry({"doc": "{}", "message": "x"}), 1).streams
    assert unpack(stream.entries)[0][1] == {"doc": '{"was":{}}', "message": "x"}


@pytest.mark.parametrize("key", ["ключ", 'a"b', "a\\b", "a\nb", "k" * 300])
def test_a_field_of_any_name(build, key):
    pipeline = build(
        "@bridge.filter('t')\ndef f(r): return {'was': r}\n", payload="json", payload_key=key
    )
    (stream,) = pipeline.run("t", entry({key: "{}"}), 1).streams
    assert unpack(stream.entries)[0][1] == {key: '{"was":{}}'}
