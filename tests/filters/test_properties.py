"""Whatever the events and whatever a filter does with them: none is lost, none is made up."""

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st
from packed import unpack

from bridge.decoding import boundaries, decode_odd, encode_odd, skip

# What a sender may put into a record, bytes that are no text included.
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    | st.binary().map(lambda data: data.decode("utf-8", "surrogateescape"))
    | st.binary()
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20))
    | st.builds(msgpack.Timestamp, st.integers(-(2**63), 2**63 - 1), st.integers(0, 999_999_999))
)
keys = st.text() | st.integers(-(2**63), 2**64 - 1) | st.none() | st.binary()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
records = st.dictionaries(keys.filter(lambda key: key not in {"id", "do"}), values, max_size=5)
DEEDS = [
    "pass",
    "same",
    "copy",
    "drop",
    "raise",
    "reject",
    "two",
    "tag",
    "time",
    "nothing",
    "bad",
    "unsendable",
]
times = st.integers(0, 2**32 - 1) | st.binary(min_size=8, max_size=8).map(
    lambda data: msgpack.ExtType(0, data[:4] + (int.from_bytes(data[4:]) % 10**9).to_bytes(4))
)

FILTERS = """
def act(record, event=None):
    match record["do"]:
        case "pass": return True
        case "same": return record if event is None else event
        case "copy": return dict(record)
        case "drop": return None if record["id"] % 2 else []
        case "raise": raise KeyError(record["id"])
        case "reject": raise bridge.Reject("no")
        case "two": return [record, dict(record)]
        case "tag": return bridge.Event("other", bridge.EventTime(1), record)
        case "time" if event is not None:
            event.time = 5
            return event
        case "bad": return 5
        case "unsendable":
            record["x"] = object()
            return record
        case _: return record

@bridge.filter("records chain")
def on_record(record): return act(record)
@bridge.filter("events chain other")
def on_event(event: bridge.Event): return act(event.record, event)
@bridge.batch("batches chain")
def on_batch(records): return [act(record) for record in records]
@bridge.filter("awaited chain other")
async def on_await(record): return act(record)

class View(msgspec.Struct):
    id: int
    do: str
@bridge.filter("views chain")
def on_view(view: View):
    return view if view.do in ("same", "copy") else act({"id": view.id, "do": view.do})
"""


def packed(events):
    packer = msgpack.Packer(unicode_errors="surrogateescape")
    return [
        packer.pack([time, {**record, "id": number, "do": deed}])
        for number, (time, record, deed) in enumerate(events)
    ]


@settings(deadline=None, max_examples=150)
@given(
    events=st.lists(st.tuples(times, records, st.sampled_from(DEEDS)), max_size=20),
    payload_tag=st.sampled_from(
        ["records", "events", "batches", "awaited", "views", "chain", "none"]
    ),
)
def test_every_event_comes_out_or_is_dead_lettered_or_dropped(built, events, payload_tag):
    tag = payload_tag
    entries = packed(events)
    outcome = built.run(tag, b"".join(entries), len(entries))
    out = [record["id"] for s in outcome.streams if not s.error for _, record in unpack(s.entries)]
    letters = [
        letter["record"]["id"]
        for s in outcome.streams
        if s.error
        for _, letter in unpack(s.entries)
    ]
    assert outcome.received == len(events)
    assert outcome.errors == len(letters)
    assert set(out) | set(letters) | {
        number for number, (_, _, deed) in enumerate(events) if deed == "drop"
    } == set(range(len(events)))
    if all(deed != "two" for _, _, deed in events):
        assert len(out) + len(letters) + outcome.dropped == len(events)
        assert len(set(out)) == len(out)
    for stream in outcome.streams:
        if stream.error:
            # A dead letter's record is the very bytes that came.
            for number in letters:
                record = entries[number][skip(entries[number], 1) :]
                assert b"\xa6record" + record in bytes(stream.entries)
        elif stream.tag == tag:
            at = {record["id"]: i for i, (_, record) in enumerate(unpack(stream.entries))}
            places = boundaries(stream.entries)
            for number, place in at.items():
                if events[number][2] in {"pass", "same", "copy"}:
                    assert (
                        bytes(stream.entries)[places[place] : places[place + 1]] == entries[number]
                    )


@given(st.binary())
@settings(max_examples=300)
def test_skip_agrees_with_msgpack(data):
    try:
        unpacker = msgpack.Unpacker(max_buffer_size=0)
        unpacker.feed(data)
        unpacker.skip()
        end = unpacker.tell()
    except (ValueError, msgpack.UnpackException):
        end = None
    try:
        ours = skip(data)
    except Exception:
        ours = None
    assert ours == end


@given(records)
def test_odd_records_are_given_back(record):
    data = msgpack.packb(record, unicode_errors="surrogateescape")
    assert skip(data) == len(data)
    assert encode_odd(decode_odd(data)) == data
