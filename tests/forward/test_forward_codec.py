"""Packed entries and their compression."""

import contextlib
import gzip
import math
import tracemalloc
import zlib

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.decoding import skip
from bridge.errors import MessageTooLarge, NotAnEvent, ProtocolError
from bridge.events import EventTime
from bridge.forward.codec import (
    compress,
    count_entries,
    decode_entries,
    decompress,
    pack_entries,
)
from bridge.forward.framing import Scanner

TEXT = st.text() | st.sampled_from(["\udcff", "\udc80x"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | TEXT
    | st.binary()
    | st.builds(msgpack.ExtType, st.integers(1, 127), st.binary())
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT | st.integers(0, 9), inner),
    max_leaves=8,
)
EVENT_TIMES = st.builds(EventTime, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
EVENTS = st.lists(
    st.tuples(
        EVENT_TIMES | st.integers(0, 2**40) | st.floats(allow_nan=False),
        st.dictionaries(TEXT, VALUES, max_size=5),
    ),
    max_size=5,
)


@settings(deadline=None)
@given(EVENTS)
def test_round_trip(events):
    packed = pack_entries(events)
    assert decode_entries(packed) == events
    assert [type(time) for time, _ in decode_entries(packed)] == [type(time) for time, _ in events]
    assert count_entries(packed) == len(events)
    assert count_entries(memoryview(packed)) == len(events)


def test_event_time_is_fixext8():
    assert pack_entries([(EventTime(1, 2), {})]) == b"\x92\xd7\x00\0\0\0\x01\0\0\0\x02\x80"


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b"", []),
        (b"\x92\xc7\x08\x00\0\0\0\x01\0\0\0\x02\x80", [(EventTime(1, 2), {})]),
        (b"\x92\x92\x01\x80\x81\xa1a\x01", [(1, {"a": 1})]),  # with metadata, as fluent-bit
        (b"\x92\x01\x81\xa2\xff\xfe\x01", [(1, {"\udcff\udcfe": 1})]),
        (b"\x92\x01\x81\x01\x02", [(1, {1: 2})]),
        (b"\x92\x01\x81\xa1a\xd6\xff\0\0\0\x01", [(1, {"a": msgpack.Timestamp(1)})]),
        (b"\x92\x01\x81\xa1a\xd4\x00\x01", [(1, {"a": msgpack.ExtType(0, b"\x01")})]),
    ],
)
def test_decode(data, events):
    assert decode_entries(bytearray(data)) == events


def test_decode_nan():
    ((_, record),) = decode_entries(pack_entries([(1, {"a": math.nan})]))
    assert math.isnan(record["a"])


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x92\x01\x80\x01", "event 1 at byte 3 is not"),
        (b"\x93\x01\x80\x80", "is not"),
        (b"\x92\xc3\x80", "no time but bool"),
        (b"\x92\xa1x\x80", "no time but str"),
        (b"\x92\x90\x80", "no time but list"),
        (b"\x92\x01\x90", "no record but list"),
        (b"\x92\x01", "event 0 at byte 0: it ends in the middle"),
        (b"\x92\x01\x80\xc1", "event 1 at byte 3: not msgpack: it holds the byte 0xc1"),
        (b"\x92\x01\x81\x80\x01", "cannot be decoded: unhashable"),
        (b"\x92\x01\x81\x01" + b"\x91" * 2000 + b"\x01", "cannot be decoded: StackError"),
        (b"\x92\x01\x81\xa1a\xd4\xff\x01", "cannot be decoded"),
        (b"\x92\x01\x81\xa1a\xc9\xff\xff\xff\xff\x05abcdef", "event 0 at byte 0"),
        (b"\xdd\x00\x0f\xff\xff" * 1000, "ends in the middle"),
    ],
)
def test_not_events(data, text):
    with pytest.raises(NotAnEvent, match=text):
        decode_entries(data)


def test_heads_that_promise_much_do_not_allocate():
    data = b"\xdd\x00\x0f\xff\xff" * 50_000
    tracemalloc.start()
    try:
        with pytest.raises(NotAnEvent):
            decode_entries(data)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=60))
def test_any_bytes(data):
    for function in (decode_entries, count_entries):
        with contextlib.suppress(NotAnEvent):
            function(data)
    for method in ("gzip", "zstd"):
        with contextlib.suppress(ProtocolError):
            decompress(data, method, 1000)


def test_count_deep():
    deep = b"\x92\x01\x81\x01" + b"\x91" * 5000 + b"\x01"
    assert count_entries(b"\x92\x01\x80" + deep * 3 + b"\x92\x01\x80") == 5


@settings(deadline=None)
@given(st.lists(VALUES, max_size=4), st.integers(0, 5))
def test_skip_agrees_with_msgpack(values, junk):
    packed = [msgpack.packb(value, unicode_errors="surrogateescape") for value in values]
    data = b"j" * junk + b"".join(packed) + b"j"
    pos = junk
    for _ in packed:
        scanner = Scanner(pos)
        assert scanner.scan(bytearray(data), 0, len(data))
        pos = skip(data, pos)
        assert scanner.pos == pos
    assert pos == len(data) - 1


@pytest.mark.parametrize("first", range(256))
def test_skip_knows_every_first_byte(first):
    """Against msgpack itself: it too needs as many bytes, and not one less."""
    data = bytes([first]) + bytes(100)
    if first == 0xC1:
        with pytest.raises(ProtocolError, match="0xc1"):
            skip(data, 0)
        return
    unpacker = msgpack.Unpacker()
    unpacker.feed(data)
    unpacker.skip()
    end = unpacker.tell()
    assert skip(data, 0) == skip(data[:end], 0) == end
    with pytest.raises(ProtocolError, match="ends in the middle"):
        skip(data[: end - 1], 0)


def test_skip_any_depth():
    data = b"\x91" * 1_000_000 + b"\x01"
    assert skip(data, 0) == len(data)


# Compression

DATA = pack_entries([(n, {"n": n, "text": "hello" * 10}) for n in range(2000)])


@pytest.mark.parametrize("method", ["gzip", "zstd"])
@pytest.mark.parametrize("count", [0, 1, 2, 300])
def test_several_members(method, count):
    data = compress(DATA, method) * count
    assert decompress(memoryview(data), method, len(DATA) * 300) == DATA * count


@pytest.mark.parametrize("method", ["gzip", "zstd"])
@settings(deadline=None, max_examples=50)
@given(parts=st.lists(st.binary()))
def test_compress_round_trip(method, parts):
    data = b"".join(compress(part, method) for part in parts)
    assert decompress(data, method, 1 << 20) == b"".join(parts)


@pytest.mark.parametrize("method", ["gzip", "zstd"])
@pytest.mark.parametrize("size", [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_000])
def test_a_long_member(method, size):
    assert decompress(compress(bytes(size), method) * 2, method, 1 << 24) == bytes(2 * size)


def test_gzip_of_others():
    assert decompress(gzip.compress(DATA), "gzip", len(DATA)) == DATA
    assert gzip.decompress(compress(DATA, "gzip")) == DATA


@pytest.mark.parametrize("method", ["gzip", "zstd"])
def test_limit(method):
    data = compress(DATA, method)
    assert decompress(data * 2, method, 2 * len(DATA)) == DATA * 2
    with pytest.raises(MessageTooLarge, match=f"more than the limit of {2 * len(DATA) - 1} bytes"):
        decompress(data * 2, method, 2 * len(DATA) - 1)


@pytest.mark.parametrize("method", ["gzip", "zstd"])
@pytest.mark.parametrize("members", [1, 64])
def test_bomb(method, members):
    data = compress(bytes((64 << 20) // members), method) * members
    tracemalloc.start()
    try:
        with pytest.raises(MessageTooLarge):
            decompress(data, method, 5 << 20)
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", ["gzip", "zstd"])
@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda data: data[:-1], "cut off"),
        (lambda data: data[: len(data) // 2], "cut off"),
        (lambda data: data + b"junk" * 10, "broken"),
        (lambda data: data + data[:5], "cut off"),
        (lambda data: b"junk" * 10, "broken"),
        (lambda data: DATA, "broken"),
        (lambda data: data[:-3] + bytes(reversed(data[-3:])), "broken"),
    ],
    ids=["end", "half", "junk after", "half a second", "junk", "not compressed", "checksum"],
)
def test_damage(method, damage, text):
    from backports import zstd

    data = compress(DATA, method)
    if method == "zstd":  # with a checksum, as the command line does
        data = zstd.compress(DATA, options={zstd.CompressionParameter.checksum_flag: 1})
    with pytest.raises(ProtocolError, match=f"the {method} data is {text}"):
        decompress(damage(data), method, 1 << 20)


def test_unknown_method():
    with pytest.raises(ProtocolError, match="unknown compression 'lz4': known are gzip, zstd"):
        decompress(b"", "lz4", 10)
    with pytest.raises(ValueError, match="unknown compression 'text'"):
        compress(b"", "text")


def test_raw_deflate_is_not_gzip():
    with pytest.raises(ProtocolError, match="data is broken near byte"):
        decompress(zlib.compress(DATA), "gzip", 1 << 20)
