"""``fluent-bridge decode``: every byte shown, what Fluentd wrote, and files that are damaged."""

import gzip
import json
import math
import os
import re
import socket
import struct
import subprocess
import sys
from base64 import b64decode
from types import SimpleNamespace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.cli import main
from bridge.decoding import as_json
from bridge.events import EventTime
from bridge.forward import codec

TIME = msgpack.ExtType(0, struct.pack(">II", 1_700_000_000, 5))
SHOWN_TIME = "2023-11-14T22:13:20.000000005Z"
DEEP = b"\x91" * 2_000 + b"\x01"


def pack(*values):
    return b"".join(msgpack.packb(one, unicode_errors="surrogateescape") for one in values)


ENTRIES = pack([TIME, {"a": 1}], [1_700_000_001, {"a": 2}], [TIME, {"a": 3}])
LINES = [
    f'{SHOWN_TIME}\t-\t{{"a":1}}',
    '2023-11-14T22:13:21Z\t-\t{"a":2}',
    f'{SHOWN_TIME}\t-\t{{"a":3}}',
]


@pytest.fixture
def decode(tmp_path, capfdbinary):
    """Return a function that decodes bytes in a file: exit code, lines, what stderr has."""

    def run(data, *argv, name="buffer.b1.log", meta=None):
        path = tmp_path / name
        path.write_bytes(data)
        if meta is not None:
            (tmp_path / f"{name}.meta").write_bytes(meta)
        code = main(["decode", str(path), *argv])
        out, err = capfdbinary.readouterr()
        return SimpleNamespace(
            code=code,
            lines=out.decode().split("\n")[:-1],
            error=err.decode().replace(str(tmp_path), "FOLDER"),
        )

    return run


VALUES = {
    "as JSON has it": ({"a": [None, True, -1, 1.5, 'é\n\t"', {}]}, '{"a":[null,true,-1,1.5,"é\\n\\t\\"",{}]}'),
    "64 bits": ([2**64 - 1, -(2**63)], "[18446744073709551615,-9223372036854775808]"),
    "not UTF-8": ("a\udcff", '"a\\udcff"'),
    "a surrogate that is three bytes": ("\udced\udcb3\udcbf", '"\\udced\\udcb3\\udcbf"'),
    "bytes": (b"a\xff", '{"$bin":"a\\udcff"}'),
    "NaN and infinity": ([math.nan, math.inf, {"a": -math.inf}], '[{"$float":"NaN"},{"$float":"Infinity"},{"a":{"$float":"-Infinity"}}]'),
    "a time": (TIME, f'{{"$time":"{SHOWN_TIME}"}}'),
    "a time of another length": (msgpack.ExtType(0, b"abc"), '{"$ext":[0,"YWJj"]}'),
    "another ext": (msgpack.ExtType(5, b"abc"), '{"$ext":[5,"YWJj"]}'),
    "a timestamp": (msgpack.Timestamp(1, 0), '{"$ext":[-1,"AAAAAQ=="]}'),
    "a key that is a number": ({1: 2, "a": 3}, '{"$map":[[1,2],["a",3]]}'),
    "a key that is bytes": ({b"a": 1}, '{"$map":[[{"$bin":"a"},1]]}'),
    "a key that is a list": (b"\x81\x91\x01\x02", '{"$map":[[[1],2]]}'),
    "a key twice": (b"\x82\xa1a\x01\xa1a\x02", '{"$map":[["a",1],["a",2]]}'),
    "a map like ours": ({"$bin": "a"}, '{"$map":[["$bin","a"]]}'),
    "a map not like ours": ({"$bin": "a", "b": 1}, '{"$bin":"a","b":1}'),
    "what a terminal obeys": ("\x1b[2J\x9b\x7f\u2028", '"\\u001b[2J\\u009b\\u007f\\u2028"'),
}  # fmt: skip


@pytest.mark.parametrize("case", VALUES)
def test_what_json_has_no_form_for(case):
    value, shown = VALUES[case]
    assert (
        as_json(value if case in {"a key that is a list", "a key twice"} else pack(value)) == shown
    )


def test_what_nests_too_deeply_is_shown_as_its_bytes():
    shown = json.loads(as_json(DEEP))
    assert list(shown) == ["$msgpack"]
    assert b64decode(shown["$msgpack"]) == DEEP


scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats().map(lambda number: math.nan if math.isnan(number) else number)
    | st.binary(max_size=9) | st.binary(max_size=9).map(os.fsdecode) | st.sampled_from(["$bin", "$map"])
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=9))
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "$bin", "$ext"]) | scalars, inner, max_size=3)
    ),
    max_leaves=8,
)


def back(value):
    """Return what a value stood for, as the bytes that it came as."""
    match value:
        case {"$bin": text} if len(value) == 1:
            return pack(text.encode("utf-8", "surrogateescape"))
        case {"$float": text} if len(value) == 1:
            return pack(float(text))
        case {"$time": text} if len(value) == 1:
            return pack(msgpack.ExtType(0, EventTime.from_isoformat(text).to_bytes()))
        case {"$ext": [code, text]} if len(value) == 1:
            return pack(msgpack.ExtType(code, b64decode(text)))
        case {"$map": pairs} if len(value) == 1:
            return _map(pairs)
        case dict():
            return _map(value.items())
        case list():
            return msgpack.Packer().pack_array_header(len(value)) + b"".join(map(back, value))
    return pack(value)


def _map(pairs):
    head = msgpack.Packer().pack_map_header(len(pairs))
    return head + b"".join(back(one) for pair in pairs for one in pair)


@given(values)
def test_nothing_is_lost(value):
    data = pack(value)
    shown = as_json(data)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", shown)
    assert back(json.loads(shown)) == data


META = {"timekey": None, "tag": "ad\tclick", "variables": None, "seq": 0, "id": b"i", "s": 3, "c": 1, "m": 1}  # fmt: skip


def test_events_a_line_each(decode):
    assert decode(ENTRIES).lines == LINES


def test_the_tag_from_beside_the_chunk(decode):
    packed = pack(META)
    shown = decode(ENTRIES, meta=b"\xc1\x00" + struct.pack(">I", len(packed)) + packed)
    assert shown.lines[0] == f'{SHOWN_TIME}\tad\\tclick\t{{"a":1}}'


@pytest.mark.parametrize(
    "message",
    [
        pack(["ad", TIME, {"a": 1}]),
        pack(["ad", [[TIME, {"a": 1}]], {"chunk": "x"}]),
        pack(["ad", pack([TIME, {"a": 1}]), {"size": 1}]),
        pack(["ad", codec.compress(pack([TIME, {"a": 1}]), "gzip"), {"compressed": "gzip"}]),
    ],
    ids=["message", "forward", "packed", "compressed"],
)
def test_forward_messages_of_each_mode(decode, message):
    shown = decode(message * 2)
    assert shown.lines == [f'{SHOWN_TIME}\tad\t{{"a":1}}'] * 2


def test_what_the_file_does_not_say_is_a_dash(decode):
    shown = decode(pack({"a": 0}, [TIME, {"a": 1}], {"a": 2}))
    assert shown.lines == ['-\t-\t{"a":0}', LINES[0], '-\t-\t{"a":2}']


def test_an_object_a_line(decode):
    shown = decode(ENTRIES[: len(pack([TIME, {"a": 1}]))] + pack({"b": b"x"}), "--json")
    assert [json.loads(line) for line in shown.lines] == [
        {"time": SHOWN_TIME, "tag": None, "record": {"a": 1}},
        {"time": None, "tag": None, "record": {"b": {"$bin": "x"}}},
    ]


def test_the_metadata_of_fluent_bit(decode):
    entries = pack([[TIME, {"m": 1}], {"a": 1}], [[TIME, {}], {"a": 1}])
    assert decode(entries).lines == [f'{LINES[0]}\t{{"m":1}}', LINES[0]]
    assert json.loads(decode(entries, "--json").lines[0])["metadata"] == {"m": 1}


def test_times_that_are_none(decode):
    message = pack(["ad", [[2**63, {}], [None, {}], [-1, {}]]])
    times = [line.split("\t")[0] for line in decode(message).lines]
    assert times == [str(2**63), "null", "1969-12-31T23:59:59Z"]


def test_any_msgpack(decode):
    shown = decode(pack(1, "x", [1, 2], None, b"\xff"), "--values")
    assert shown.lines == ["1", '"x"', "[1,2]", "null", '{"$bin":"\\udcff"}']


@pytest.mark.parametrize("method", ["gzip", "zstd"])
def test_compressed_in_several_members(decode, method):
    one = codec.compress(ENTRIES, method)
    assert decode(one * 3).lines == LINES * 3


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_a_limit_spares_what_comes_after(decode, limit):
    shown = decode(ENTRIES + b"\xc1", "--limit", str(limit))
    assert shown.lines == LINES[:limit]
    assert shown.code == (1 if limit == 5 else 0)


def test_standard_input():
    command = [sys.executable, "-m", "bridge", "decode"]
    done = subprocess.run(command, input=ENTRIES, capture_output=True, check=True)
    assert done.stdout.decode().splitlines() == LINES


def test_an_empty_file_has_no_events(decode):
    assert (decode(b"").code, decode(b"").lines) == (0, [])


FIRST = len(pack([TIME, {"a": 1}]))
TWO = FIRST + len(pack([1_700_000_001, {"a": 2}]))
WHERE = "error: FOLDER/buffer.b1.log"
DAMAGED = {
    "a torn write": (
        ENTRIES[:-1], [], 2,
        f"{WHERE}, byte {TWO}: the file ends in the middle of an event: its last {FIRST - 1} bytes are the beginning of one; it was cut off, or is still being written",
    ),
    "zeros where the disk lost the end": (
        ENTRIES + bytes(9), [], 3,
        f"{WHERE}, byte {len(ENTRIES)}: neither an event [time, record] nor a record: ",
    ),
    "not msgpack": (
        ENTRIES + b"\xc1", [], 3,
        f"{WHERE}, byte {len(ENTRIES)}: not msgpack: ",
    ),
    "no time": (
        ENTRIES + pack(["x", {}]), [], 3,
        f"{WHERE}, byte {len(ENTRIES)}: neither an event [time, record] nor a record: ",
    ),
    "a message": (
        pack(["ad", TIME, {"a": 1}])[:-1], [], 0,
        f"{WHERE}, byte 0: the file ends in the middle of a message: ",
    ),
    "a second member": (
        gzip.compress(ENTRIES) + gzip.compress(ENTRIES)[:15], [], 3,
        f"{WHERE}, byte {len(gzip.compress(ENTRIES)) + 15}: cannot be read to its end: ",
    ),
    "other text": (b"{}\n", [], 0, f"{WHERE}, byte 0: neither an event [time, record] nor a record: "),
    "any values": (pack("x", "y")[:-1], ["--values"], 1, f"{WHERE}, byte 2: the file ends in the middle of an event"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_shown_as_far_as_it_goes(decode, case):
    data, argv, events, says = DAMAGED[case]
    shown = decode(data, *argv)
    assert shown.code == 1
    assert len(shown.lines) == events
    assert shown.error.startswith(says)
    assert len(shown.error.splitlines()) == 1


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["none.log"], "error: none.log: cannot be read: No such file or directory; give a file"),
        (["."], "error: .: cannot be read: Is a directory; give a file"),
        (["x", "--json", "--values"], "--json and --values exclude each other"),
        (["x", "--limit", "0"], "--limit"),
        (["x", "y"], "y"),
    ],
)
def test_wrong_usage(tmp_path, monkeypatch, capsys, argv, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["decode", *argv]) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert shown.out == ""


CHUNKS = """
<source>
  @type forward
  port "#{ENV['RETURN_PORT']}"
</source>
<match plain>
  @type forward
  <server>
    host 127.0.0.1
    port 1
  </server>
  <buffer tag>
    @type file
    path "#{ENV['BUFFER_DIR']}/plain"
    flush_interval 1h
    flush_at_shutdown false
  </buffer>
</match>
<match gzip>
  @type forward
  compress gzip
  heartbeat_type none
  <server>
    host 127.0.0.1
    port 1
  </server>
  <buffer tag>
    @type file
    path "#{ENV['BUFFER_DIR']}/gzip"
    flush_interval 1h
    flush_at_shutdown false
  </buffer>
</match>
"""
WRITTEN = [
    {"id": number, "text": "\udcff\t", "raw": b"\xff", "nan": math.nan} for number in range(3)
]


def test_what_a_real_fluentd_wrote(decode, fluentd, tmp_path):
    """Three messages a chunk, so three members where it compresses; then each with its end torn off."""
    conf = tmp_path / "chunks.conf"
    conf.write_text(CHUNKS)
    process = fluentd(tmp_path / "fluentd", {}, conf=conf)
    process.start()
    with socket.create_connection(("127.0.0.1", process.return_port)) as connection:
        for tag in ("plain", "gzip"):
            for record in WRITTEN:
                entries = pack([TIME, record])
                connection.sendall(pack([tag, entries, {"size": 1, "chunk": "c"}]))
                assert msgpack.unpackb(connection.recv(512)) == {"ack": "c"}
    process.kill()
    for tag in ("plain", "gzip"):
        [log] = (tmp_path / "fluentd" / "buffers").glob(f"{tag}/*.log")
        data, meta = log.read_bytes(), log.with_name(f"{log.name}.meta").read_bytes()
        expected = [f"{SHOWN_TIME}\t{tag}\t{as_json(pack(record))}" for record in WRITTEN]
        assert data.count(b"\x1f\x8b") == (3 if tag == "gzip" else 0)
        whole = decode(data, meta=meta)
        assert (whole.code, whole.lines) == (0, expected)
        torn = decode(data[:-4], meta=meta)
        assert (torn.code, torn.lines[:2]) == (1, expected[:2])
