"""What is odd about an event comes out as it came, whatever kind of filter it passes."""

import struct

import msgpack
import msgspec
import pytest
from packed import entry

FILTERS = """
class View(msgspec.Struct):
    n: int

@bridge.filter("identity")
def identity(record: dict): return record
@bridge.filter("copies")
def copies(record: dict): return dict(record)
@bridge.filter("adds")
def adds(record: dict):
    record["added"] = 1
    return record
@bridge.filter("predicate")
def predicate(record: dict) -> bool: return True
@bridge.filter("undeclared")
def undeclared(record: dict): return True
@bridge.filter("view")
def view(view: View) -> bool: return view.n == 1
@bridge.filter("event")
def event(event: bridge.Event) -> bridge.Event: return event
@bridge.filter("moves")
def moves(event: bridge.Event) -> bridge.Event:
    event.tag = "moved"
    return event
@bridge.filter("several")
def several(view: View): return True
@bridge.filter("several")
def then_record(record): return record
@bridge.filter("several")
def then_event(event: bridge.Event): return event
@bridge.filter("several")
def then_view(view: View) -> bool: return view.n == 1
@bridge.batch("batch")
def batch(records): return records
@bridge.filter("asynchronous")
async def asynchronous(record): return record
"""
UNCHANGED = [
    "identity", "copies", "predicate", "undeclared", "view", "event", "moves", "several", "batch",
    "asynchronous", "nothing matches",
]  # fmt: skip

N = b"\xa1n\x01"  # n: 1


def field(value, key=b"\xa1x"):
    return b"\x82" + N + key + value


F64 = struct.Struct(">d").pack
ODD = {
    "not UTF-8": field(b"\xa2\xff\xfe"),
    "a surrogate, encoded": field(b"\xa3\xed\xa0\x80"),
    "key not UTF-8": field(b"\x01", b"\xa2a\xff"),
    "not UTF-8, nested": field(b"\x81\xa1y\x92\xa1\xff\xc0"),
    "long text not UTF-8": field(b"\xda\x01\x00" + b"\xff" * 256),
    "NaN": field(b"\xcb\x7f\xf8" + bytes(6)),
    "NaN with a payload": field(b"\xcb\xff\xf8\0\0\0\0\x12\x34"),
    "infinite": field(b"\xcb\x7f\xf0" + bytes(6)),
    "negative zero": field(b"\xcb\x80" + bytes(7)),
    "key is an integer": field(b"\x01", b"\x07"),
    "key is nil": field(b"\x01", b"\xc0"),
    "key is true": field(b"\x01", b"\xc3"),
    "key is a float": field(b"\x01", b"\xcb" + F64(1.5)),
    "key is binary": field(b"\x01", b"\xc4\x02\xff\x00"),
    "key is an array": field(b"\x01", b"\x92\x01\x02"),
    "key is a map": field(b"\x01", b"\x81\x01\x02"),
    "key is an ext": field(b"\x01", b"\xd4\x05\x01"),
    "key is a map, nested": field(b"\x91\x81\x80\x01"),
    "unknown ext": field(b"\xd5\x2a\x01\x02"),
    "unknown ext of 3 bytes": field(b"\xc7\x03\x2a\x01\x02\x03"),
    "negative ext": field(b"\xd4\x80\x01"),
    "EventTime in the record": field(b"\xd7\x00" + bytes(8)),
    "timestamp 32": field(b"\xd6\xff\x65\x00\x00\x01"),
    "timestamp 64": field(b"\xd7\xff" + struct.pack(">Q", 123_456_789 << 34 | 1_700_000_000)),
    "timestamp 96": field(b"\xc7\x0c\xff" + struct.pack(">Iq", 999_999_999, -1)),
    "timestamp as ext 8": field(b"\xc7\x04\xff\x65\x00\x00\x01"),
    "timestamp as ext 16": field(b"\xc8\x00\x08\xff" + struct.pack(">Q", 1 << 34 | 5)),
    "timestamp as ext 32": field(b"\xc9\0\0\0\x04\xff\x65\x00\x00\x01"),
    "timestamp of a wrong length": field(b"\xc7\x05\xff\x01\x02\x03\x04\x05"),
    "timestamp as a key": field(b"\x01", b"\xd6\xff\x65\x00\x00\x01"),
    "largest integer": field(b"\xcf" + b"\xff" * 8),
    "smallest integer": field(b"\xd3\x80" + bytes(7)),
    "minus one": field(b"\xff"),
    "nested 500 deep": field(b"\x91" * 500 + b"\x01"),
    "nested 900 deep": field(b"\x91" * 900 + b"\x01"),
    "nested 980 deep": field(b"\x91" * 980 + b"\x01"),
    "nested 1,010 deep": field(b"\x91" * 1010 + b"\x01"),
    "nested 5,000 deep": field(b"\x91" * 5_000 + b"\x01"),
    "nested 30,000 deep": field(b"\x91" * 30_000 + b"\x01"),
    "maps nested 10,000 deep": field(b"\x81\xa1k" * 10_000 + b"\x01"),
    "odd in many ways": b"\x86" + N + b"\xa1a" + b"\x91" * 5_000 + b"\x01" + b"\x81\x01\x02\xa1\xff"
    + b"\xa1\xff\xd6\xff\0\0\0\x01" + b"\xa1b\xd4\x05\x01" + b"\x05\xcf" + b"\xff" * 8,
}  # fmt: skip


@pytest.fixture
def pipeline(build):
    return build(FILTERS)


def around(odd):
    plain = entry({"n": 1, "text": "ä"})
    return plain + entry(odd) + plain


@pytest.mark.parametrize("name", ODD)
def test_unchanged_byte_for_byte(pipeline, name):
    entries = around(ODD[name])
    for tag in UNCHANGED:
        for count in (3, None, 2):
            outcome = pipeline.run(tag, entries, count)
            (stream,) = outcome.streams
            assert bytes(stream.entries) == entries, tag
            assert (stream.count, outcome.errors) == (3, 0)
            assert stream.tag == ("moved" if tag == "moves" else tag)


@pytest.mark.parametrize("name", ODD)
def test_other_fields_are_unharmed(pipeline, name):
    odd = ODD[name]
    expected = b"".join(
        entry(bytes([record[0] + 1]) + record[1:] + b"\xa5added\x01")
        for record in (msgspec.msgpack.encode({"n": 1, "text": "ä"}), odd)
    )
    if name in {"timestamp as ext 8", "timestamp as ext 16", "timestamp as ext 32"}:
        # The same values in their shortest forms.
        expected = expected.replace(b"\xc7\x04\xff", b"\xd6\xff").replace(
            b"\xc9\0\0\0\x04\xff", b"\xd6\xff"
        )
        expected = expected.replace(b"\xc8\x00\x08\xff", b"\xd7\xff")
    (stream,) = pipeline.run("adds", entry({"n": 1, "text": "ä"}) + entry(odd), 2).streams
    assert bytes(stream.entries) == expected


def test_predicates_keep_what_decoding_would_lose(pipeline):
    for lossy in (
        field(b"\xca\x3f\xc0\0\0"),  # a 32-bit float
        b"\x83" + N + b"\xa1x\x01\xa1x\x02",  # a key that comes twice
        field(b"\xd3" + bytes(7) + b"\x01"),  # a small integer in a long form
    ):
        entries = around(lossy)
        for tag in ("predicate", "view", "nothing matches"):
            (stream,) = pipeline.run(tag, entries, 3).streams
            assert bytes(stream.entries) == entries


def test_filters_see_what_can_be_seen(run):
    result = run(
        """
        import msgpack
        @bridge.filter("t")
        def f(record):
            kinds = {"n": record.pop("n")}
            for key, value in record.items():
                kinds[str(key)] = type(value).__name__
                if type(value) is str: kinds["text"] = value.encode("utf-8", "surrogateescape")
                if type(value) is msgpack.Timestamp: kinds["ns"] = value.to_unix_nano()
            return kinds
        """,
        b"".join(
            entry(ODD[name])
            for name in (
                "not UTF-8",
                "timestamp 64",
                "unknown ext",
                "nested 5,000 deep",
                "key is a map",
            )
        ),
    )
    assert result.records() == [
        {"n": 1, "x": "str", "text": b"\xff\xfe"},
        {"n": 1, "x": "Timestamp", "ns": 1_700_000_000_123_456_789},
        {"n": 1, "x": "Ext"},
        {"n": 1, "x": "Opaque"},
        {"n": 1, "Opaque(b'\\x81\\x01\\x02')": "int"},
    ]


def test_odd_values_can_be_moved(build):
    pipeline = build(
        """
        @bridge.filter("t")
        def f(record):
            return {"moved": [record["x"], {"deeper": record["x"]}], "also": record["x"]}
        """
    )
    for name in ("nested 30,000 deep", "nested 1,010 deep", "not UTF-8", "timestamp 96"):
        (stream,) = pipeline.run("t", entry(ODD[name]), 1).streams
        x = ODD[name][6:]
        assert bytes(stream.entries) == entry(
            b"\x82\xa5moved\x92" + x + b"\x81\xa6deeper" + x + b"\xa4also" + x
        )


def test_times_come_out_as_they_came(pipeline):
    times = [
        b"\xd7\x00" + bytes(8),
        b"\xc7\x08\x00" + bytes(8),
        b"\x05",
        b"\xce\0\0\0\x05",
        b"\xcb" + F64(1.5),
    ]
    for record in (b"\x81" + N, ODD["not UTF-8"]):
        entries = b"".join(b"\x92" + time + record for time in times)
        for tag in UNCHANGED:
            (stream,) = pipeline.run(tag, entries, len(times)).streams
            assert bytes(stream.entries) == entries, tag
    for header in (b"\xdc\x00\x02", b"\xdd\x00\x00\x00\x02"):
        entries = header + times[0] + b"\x81" + N
        for tag in UNCHANGED:
            (stream,) = pipeline.run(tag, entries, 1).streams
            assert msgpack.unpackb(bytes(stream.entries)) == msgpack.unpackb(entries)


@pytest.mark.parametrize("name", ODD)
def test_a_dead_letter_holds_the_record_as_it_came(build, name):
    pipeline = build(
        """
        @bridge.filter("t")
        def first(record):
            record.clear()
            return record
        @bridge.filter("t")
        def f(record): raise ValueError(record)
        """
    )
    (stream,) = pipeline.run("t", around(ODD[name]), 3).streams
    assert (stream.tag, stream.count, stream.error) == ("error.t", 3, True)
    assert b"\xa6record" + ODD[name] in bytes(stream.entries)


def test_a_tag_that_is_not_utf_8(build):
    pipeline = build(
        "@bridge.filter('**')\ndef f(e: bridge.Event): return [e, {}] if e.record else 1 / 0\n"
    )
    tag = "a\udcff"
    outcome = pipeline.run(tag, entry({"n": 1}) + entry({}), 2)
    assert [(s.tag, s.count) for s in outcome.streams] == [(tag, 2), (f"error.{tag}", 1)]
    assert b"\xa3tag\xa2a\xff" in bytes(outcome.streams[1].entries)
