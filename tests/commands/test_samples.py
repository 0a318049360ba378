"""Reading events from files: what comes out, and what is said of what cannot be read."""

import gzip
import json
import os
import subprocess
import sys

import msgpack
import pytest

from bridge.errors import SampleError
from bridge.events import EventTime
from bridge.forward import codec
from bridge.forward.messages import packed_forward
from bridge.samples import Source, chunks, documents, read

NOW = EventTime(1_800_000_000, 5)
TIMES = [EventTime(1_700_000_000, n) for n in range(100)]
RECORDS = [{"id": n, "text": "ü" * (n % 50)} for n in range(100)]
ENTRIES = codec.pack_entries(list(zip(TIMES, RECORDS, strict=True)))
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS)


@pytest.fixture
def file(tmp_path):
    """Return a function: name, content → path."""

    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def samples(path, kind=None):
    return list(read(path, kind, clock=lambda: NOW))


def seen(path, kind=None):
    return [(one.tag, one.time, one.record) for one in samples(path, kind)]


EVENTS = [(None, time, record) for time, record in zip(TIMES, RECORDS, strict=True)]
UNTIMED = [(None, NOW, record) for record in RECORDS]


@pytest.mark.parametrize(
    ("name", "content", "events"),
    [
        ("buffer.b5f.log", ENTRIES, EVENTS),
        ("buffer.b5f.log", gzip.compress(ENTRIES[:1000]) + gzip.compress(ENTRIES[1000:]), EVENTS),
        ("e", codec.compress(ENTRIES, "zstd"), EVENTS),
        ("e.msgpack.gz", gzip.compress(ENTRIES), EVENTS),
        ("e.mp", b"".join(map(msgpack.packb, RECORDS)), UNTIMED),
        ("e.jsonl", LINES, UNTIMED),
        ("e.ndjson", LINES.replace("\n", "\r\n\n"), UNTIMED),
        ("e.jsonl", "\ufeff" + LINES.rstrip("\n"), UNTIMED),
        ("e.log", LINES, UNTIMED),
        ("e.jsonl.zst", codec.compress(LINES.encode(), "zstd"), UNTIMED),
        ("e.json", LINES, UNTIMED),
        ("e.json", json.dumps(RECORDS), UNTIMED),
        ("e.json", json.dumps(RECORDS[3], indent=1), [UNTIMED[3]]),
        ("e.log", "", []),
        ("e.log", " \n", []),
    ],
)
def test_formats_are_told_by_name_and_by_the_first_bytes(file, name, content, events):
    assert seen(file(name, content)) == events


def test_every_value_in_csv_is_a_text(file):
    path = file("e.csv", '\ufeffid,price,note\r\n1,1.5,"a, ""b""\nc"\r\n\r\n2,,true\r\n')
    assert [one.record for one in samples(path)] == [
        {"id": "1", "price": "1.5", "note": 'a, "b"\nc'},
        {"id": "2", "price": "", "note": "true"},
    ]


MESSAGES = [
    *packed_forward("packed", ENTRIES, count=100, chunk_id="x"),
    *packed_forward("gzipped", gzip.compress(ENTRIES), compressed="gzip"),
    msgpack.packb(["forward", [[17, {"a": 1}], [18, {"a": 2}]]]),
    msgpack.packb(["message", 19, {"a": 3}, {"chunk": "y"}]),
    b"\xc0",
]


def test_forward_messages_of_every_mode_with_their_tags(file):
    found = seen(file("messages", b"".join(MESSAGES)))
    assert found[:100] == [("packed", *rest) for _, *rest in EVENTS]
    assert found[100:200] == [("gzipped", *rest) for _, *rest in EVENTS]
    assert found[200:] == [
        ("forward", 17, {"a": 1}),
        ("forward", 18, {"a": 2}),
        ("message", 19, {"a": 3}),
    ]


def test_an_event_stays_the_bytes_that_it_was(file):
    odd = [
        b"\x92\xd7\x00\x00\x00\x00\x01\x00\x00\x00\x02\xde\x00\x01\xa1a\xa3\xff\xfe\xfd",
        b"\xdc\x00\x02\x01\x81\xa1n\xcb\x7f\xf8" + bytes(6),
        b"\x92\x92\xd7\x00\x00\x00\x00\x01\x00\x00\x00\x02\x81\xa1m\x01\x81\xa1a\x01",
        b"\x92\xcb\x41\xd0\x00\x00\x00\x00\x00\x00\x81\xa1d" + b"\x91" * 3000 + b"\x01",
        b"\x92\x01\x81\xa1a\x02",
    ]
    found = samples(file("e.msgpack", b"".join(odd)))
    assert [one.entry for one in found] == odd
    assert [one.place for one in found] == [sum(map(len, odd[:n])) for n in range(len(odd))]
    assert found[0].record == {"a": "\udcff\udcfe\udcfd"}
    assert found[2].time == EventTime(1, 2)  # fluent-bit's time with metadata


def test_events_of_any_size_over_the_blocks_that_are_read(file):
    sizes = [0, 262_000, 262_144, 1_000_000, 3_000_000, 10, 262_130] * 2
    records = [{"pad": "x" * size} for size in sizes]
    entries = codec.pack_entries([(7, record) for record in records])
    assert [one.record for one in samples(file("e.mp", entries))] == records


def test_the_tag_of_a_buffer_chunk_is_in_the_file_beside_it(file):
    # plugin/buffer/file_chunk.rb: header, size, and the metadata in msgpack
    meta = msgpack.packb(
        {"timekey": None, "tag": "ad.click", "variables": None, "id": b"x", "s": 100}
    )
    file("buffer.q5f.log.meta", b"\xc1\x00" + len(meta).to_bytes(4) + meta + b"rest")
    assert {one.tag for one in samples(file("buffer.q5f.log", ENTRIES))} == {"ad.click"}
    file("other.log.meta", b"\xc1\x00\x00\x00")
    assert {one.tag for one in samples(file("other.log", ENTRIES))} == {None}


@pytest.mark.parametrize(
    ("name", "content", "before", "message"),
    [
        ("e.jsonl", LINES + '{"id": 1\n', 100, ":101: not a JSON object: Input data was truncated; correct this line"),
        ("e.jsonl", '{"id": 1}\n\n[1]\n', 1, ":3: not a JSON object: Expected `object`, got `array`"),
        ("e.jsonl", b'{"id": "\xff"}\n', 0, ":1: not a JSON object: "),
        ("e.log", "{bad}\n{}\n", 0, ":1: not a JSON object: JSON is malformed"),
        ("e.jsonl", '{"id": 123456789012345678901234}', 0, ":1: the record cannot be sent"),
        ("e.json", "[{}, 1]", 0, ": neither a JSON object nor an array of objects: Expected `object`"),
        ("e.csv", "a,b\n1,2\n3\n", 1, ":3: 1 fields, the header has 2: a text with a comma"),
        ("e.csv", "a,a\n", 0, ":1: a header row with an empty or repeated name: a,a"),
        ("e.csv", 'a,b\n"1,2\n3,4\n', 0, ":3: not CSV in UTF-8: unexpected end of data"),
        ("e.csv", b"a,b\n1,\xff\n", 0, ": not CSV in UTF-8: "),
        ("e.log", ENTRIES[:-3], 99, f", byte {ENTRIES.rindex(bytes([0x92, 0xD7, 0]))}: the file ends in the middle of an event"),
        ("e.mp", ENTRIES + b"\xc1", 100, f", byte {len(ENTRIES)}: not msgpack: it holds the byte 0xc1"),
        ("e.mp", msgpack.packb([1, {}]) + msgpack.packb([1, 2, 3]), 1, ", byte 3: neither an event [time, record] nor a record"),
        ("e.mp", msgpack.packb([1, 2]), 0, ", byte 0: neither an event [time, record] nor a record: its record is not a map"),
        ("e.mp", msgpack.packb([None, {}]), 0, ", byte 0: neither an event [time, record] nor a record: its time is neither"),
        ("e.mp", MESSAGES[0] + MESSAGES[1] + MESSAGES[2] + msgpack.packb(["t", 1])[:-1], 100, "the file ends in the middle of a message"),
        ("e.mp", msgpack.packb(["t", 1, 2]), 0, ", byte 0: no Forward message: the message under tag 't': its record is no map"),
        ("e.mp", msgpack.packb(["t", ENTRIES[:-1]]), 99, ", byte 0: no Forward message: the entries under tag 't' end in the middle"),
        ("e.log.gz", gzip.compress(ENTRIES)[:-30], None, ": cannot be read"),
        ("e.log", "GET / HTTP/1.1\n", 0, ": its format cannot be told from its first bytes"),
    ],
)  # fmt: skip
def test_a_mistake_names_the_place_and_comes_after_what_stands_before_it(
    file, name, content, before, message
):
    path = file(name, content)
    found = []
    with pytest.raises(SampleError) as caught:
        for one in read(path):
            found.append(one)  # noqa: PERF402 - what came before it counts
    assert before in (None, len(found))  # None: as far as zlib gets
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("name", "reason"), [("none.jsonl", "No such file"), ("", "Is a directory")]
)
def test_a_file_that_cannot_be_opened(tmp_path, name, reason):
    with pytest.raises(SampleError, match=f"cannot be read: {reason}.*; give a file of events"):
        samples(tmp_path / name)


def test_a_format_that_is_given_wins_over_the_name(file):
    path = file("e.jsonl", ENTRIES)
    assert seen(path, "msgpack") == EVENTS
    with pytest.raises(SampleError, match=":1: not a JSON object"):
        samples(path)


PROGRAM = """
import sys
from bridge.samples import read
for one in read("-"):
    print(one.record["id"], flush=True)
"""


def test_standard_input_is_read_as_it_comes():
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        for number in range(3):  # each is read before the next is written
            process.stdin.write(msgpack.packb({"id": number}))
            process.stdin.flush()
            assert process.stdout.readline() == b"%d\n" % number
        process.stdin.close()
    assert process.returncode == 0


def test_memory_stays_while_a_large_file_streams_by(tmp_path):
    path = tmp_path / "large.msgpack"
    with path.open("wb") as out:
        for _ in range(60):
            out.write(codec.pack_entries([(1, {"pad": "x" * 1000})] * 1000))
    program = (
        "import sys, resource; from bridge.samples import read, chunks\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert sum(one.count for one in chunks(read(sys.argv[1]), 1000)) == 60_000\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, check=True, text=True
    )
    assert int(done.stdout) < 20_000  # KiB; the file has 60 MB


def test_chunks_are_of_one_tag_and_of_the_size(file):
    path = file("messages", b"".join(MESSAGES))
    found = list(chunks(read(path), 60))
    assert [(one.tag, one.count) for one in found] == [
        ("packed", 60), ("packed", 40), ("gzipped", 60), ("gzipped", 40), ("forward", 2), ("message", 1),
    ]  # fmt: skip
    assert found[0].entries + found[1].entries == ENTRIES
    assert [(one.tag, one.count) for one in chunks(read(path), 150, tag="x")] == [
        ("x", 150),
        ("x", 53),
    ]
    assert [one.tag for one in chunks(read(file("e.jsonl", "{}")), 5)] == [""]


def test_chunks_give_what_stands_before_a_mistake(file):
    path = file("e.jsonl", LINES + "{")
    found = []
    with pytest.raises(SampleError):
        for one in chunks(read(path), 60):
            found.append(one.count)
    assert found == [60, 40]


def test_documents_are_the_records_as_json_text(file):
    path = file("e.jsonl", '{"id":1,"ü":[1.5,null]}\n{"message":"{}"}\n')
    found = list(documents(read(path, clock=lambda: NOW), "message"))
    assert [one.record for one in found] == [
        {"message": '{"id":1,"ü":[1.5,null]}'},
        {"message": "{}"},
    ]
    assert {one.time for one in found} == {NOW}
    odd = file("e.mp", b"\x92\x01\x81\xa1a\xa3\xff\xfe\xfd")
    (one,) = documents(read(odd), "m")
    assert json.loads(one.record["m"]) == {"a": "\udcff\udcfe\udcfd"}


def test_an_open_source_says_how_far_it_is(file):
    path = file("e.mp", codec.pack_entries([(1, {"pad": "x" * 1000})] * 1000))
    with Source(path) as source:
        assert source.size == os.path.getsize(path)
        events = read(source)
        next(events)
        assert 0 < source.position < source.size
        assert len(list(events)) == 999
        assert source.position == source.size
    assert source.position == source.size
