"""The server's role: one table of what may arrive, driven whole, byte by byte and in random pieces."""

import gc
import random
import time
import tracemalloc
import weakref

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import AuthenticationError, MessageTooLarge, NotAnEvent, ProtocolError
from bridge.events import EventTime
from bridge.forward import (
    Announced,
    Chunk,
    ClientAuth,
    Receiver,
    SendBytes,
    ServerAuth,
    ack_message,
    packed_forward,
)
from bridge.forward.codec import compress, pack_entries
from bridge.forward.messages import Helo

LIMIT = 256 << 10
NOW = EventTime(1_700_000_000, 5)
EVENTS = [(EventTime(1, 2), {"a": 1}), (3, {"b": "x" * 50}), (4.5, {})]
ENTRIES = pack_entries(EVENTS)
DEEP = b"\x81\xa1d" + b"\x91" * 3000 + b"\x01"  # a record that msgpack's own skip refuses


def packed(head, *, tag=b"\xa3t.x", entries=ENTRIES, option=b"", parts=None):
    parts = parts or (b"\x93" if option else b"\x92")
    return parts + tag + head + entries + option


def size(width):
    return len(ENTRIES).to_bytes(width)


def chunk(entries=ENTRIES, *, tag="t.x", count=None, compressed=None, ack=None):
    return [Announced(len(entries)), Chunk(tag, entries, count, compressed, ack)]


def one(time, record=b"\x81\xa1a\x01", *, ack=None):
    return [Chunk("t", b"\x92" + time + record, 1, None, ack)]


def forward(*entries, option=b""):
    head = b"\x93" if option else b"\x92"
    return head + b"\xa1t\xdc" + len(entries).to_bytes(2) + b"".join(entries) + option


def message(time, record=b"\x81\xa1a\x01", option=b""):
    return (b"\x94" if option else b"\x93") + b"\xa1t" + time + record + option


def opt(**values):
    return msgpack.packb(values)


SEVERAL = compress(ENTRIES, "gzip") + compress(ENTRIES, "gzip")
PLAIN = packed(b"\xc4" + size(1))
LONG = pack_entries([(1, {"long": "x" * 200_000})])

# name, bytes, what comes out: events, then the error if there is one, or "eof" if the end is within
CASES = [
    ("nothing", b"", []),
    ("nil", b"\xc0\xc0", []),
    # PackedForward
    ("bin8", PLAIN, chunk()),
    ("bin16", packed(b"\xc5" + size(2)), chunk()),
    ("bin32", packed(b"\xc6" + size(4)), chunk()),
    ("str8", packed(b"\xd9" + size(1)), chunk()),
    ("str16", packed(b"\xda" + size(2)), chunk()),
    ("str32, as Fluentd", packed(b"\xdb" + size(4)), chunk()),
    ("fixstr", b"\x92\xa1t\xa3\x92\x01\x80", chunk(b"\x92\x01\x80", tag="t")),
    ("no entries", b"\x92\xa0\xc4\x00", chunk(b"", tag="")),
    ("array16", packed(b"\xc4" + size(1), parts=b"\xdc\x00\x02"), chunk()),
    ("array32", packed(b"\xc4" + size(1), parts=b"\xdd\x00\x00\x00\x02"), chunk()),
    ("entries not looked into", b"\x92\xa1t\xc4\x02\xc1\xc1", chunk(b"\xc1\xc1", tag="t")),
    (
        "over the buffer",
        packed(b"\xc6\x00\x02\x00\x00", entries=b"x" * 0x20000),
        chunk(b"x" * 0x20000),
    ),
    ("two and a nil", PLAIN + b"\xc0" + PLAIN, chunk() * 2),
    # tags
    ("tag str8", packed(b"\xc4" + size(1), tag=b"\xd9\x01t"), chunk(tag="t")),
    ("tag bin", packed(b"\xc4" + size(1), tag=b"\xc4\x01t"), chunk(tag="t")),
    ("tag not UTF-8", packed(b"\xc4" + size(1), tag=b"\xa2\xff\xfe"), chunk(tag="\udcff\udcfe")),
    ("tag UTF-8", packed(b"\xc4" + size(1), tag=b"\xa2\xc3\xa4"), chunk(tag="ä")),
    ("tag too long", b"\x92\xda\x10\x01", [MessageTooLarge, "tag of 4097 bytes"]),
    ("tag is a number", b"\x92\x01\x90", [NotAnEvent, "begins with its tag"]),
    # option
    ("option nil", packed(b"\xc4" + size(1), option=b"\xc0"), chunk()),
    ("option empty", packed(b"\xc4" + size(1), option=b"\x80"), chunk()),
    ("size", packed(b"\xc4" + size(1), option=opt(size=3)), chunk(count=3)),
    ("size uint16", packed(b"\xc4" + size(1), option=opt(size=30000)), chunk(count=30000)),
    (
        "size int64",
        packed(b"\xc4" + size(1), option=b"\x81\xa4size\xd3" + b"\0" * 7 + b"\x09"),
        chunk(count=9),
    ),
    ("size 0 is unknown", packed(b"\xc4" + size(1), option=opt(size=0)), chunk()),
    ("size negative", packed(b"\xc4" + size(1), option=opt(size=-300)), chunk()),
    ("size is text", packed(b"\xc4" + size(1), option=opt(size="3")), chunk()),
    ("ack", packed(b"\xc4" + size(1), option=opt(chunk="abc\n")), chunk(ack=b"\xa4abc\n")),
    ("ack bin", packed(b"\xc4" + size(1), option=opt(chunk=b"\xff")), chunk(ack=b"\xc4\x01\xff")),
    (
        "ack is anything",
        packed(b"\xc4" + size(1), option=opt(chunk=[1, {"a": 2}])),
        chunk(ack=b"\x92\x01\x81\xa1a\x02"),
    ),
    ("ack nil", packed(b"\xc4" + size(1), option=opt(chunk=None)), chunk()),
    ("ack false", packed(b"\xc4" + size(1), option=opt(chunk=False)), chunk()),
    ("key bin", packed(b"\xc4" + size(1), option=b"\x81\xc4\x05chunk\x01"), chunk(ack=b"\x01")),
    (
        "unknown keys",
        packed(b"\xc4" + size(1), option=b"\x84\x01\x02\x91\x01\x90\xa1z\x80\xa5chunk\x01"),
        chunk(ack=b"\x01"),
    ),
    ("map16", packed(b"\xc4" + size(1), option=b"\xde\x00\x01\xa5chunk\x01"), chunk(ack=b"\x01")),
    (
        "option deep",
        packed(b"\xc4" + size(1), option=b"\x82\xa1d" + b"\x91" * 2000 + b"\x01\xa5chunk\x01"),
        chunk(ack=b"\x01"),
    ),
    (
        "option is a string",
        packed(b"\xc4" + size(1), option=b"\xa1x"),
        [Announced(len(ENTRIES)), ProtocolError, "'t.x': the option is a msgpack str"],
    ),
    (
        "option too long",
        packed(b"\xc4" + size(1), option=opt(x="x" * 70_000)),
        [Announced(len(ENTRIES)), MessageTooLarge, "65536 bytes"],
    ),
    (
        "option not msgpack",
        packed(b"\xc4" + size(1), option=b"\x81\xa1a\xc1"),
        [Announced(len(ENTRIES)), ProtocolError, "0xc1"],
    ),
    (
        "one part too many",
        packed(b"\xc4" + size(1), parts=b"\x94"),
        [Announced(len(ENTRIES)), NotAnEvent, "after its option"],
    ),
    # CompressedPackedForward
    (
        "gzip",
        packed(
            b"\xc4" + bytes([len(SEVERAL)]), entries=SEVERAL, option=opt(compressed="gzip", size=6)
        ),
        chunk(SEVERAL, count=6, compressed="gzip"),
    ),
    ("zstd", packed(b"\xc4" + size(1), option=opt(compressed="zstd")), chunk(compressed="zstd")),
    ("text, as Fluentd", packed(b"\xc4" + size(1), option=opt(compressed="text")), chunk()),
    ("compressed nil", packed(b"\xc4" + size(1), option=opt(compressed=None)), chunk()),
    (
        "compressed bin",
        packed(b"\xc4" + size(1), option=opt(compressed=b"gzip")),
        chunk(compressed="gzip"),
    ),
    (
        "compressed unknown",
        packed(b"\xc4" + size(1), option=opt(compressed="lz4")),
        [
            Announced(len(ENTRIES)),
            ProtocolError,
            "'t.x' has unknown compression 'lz4': known are gzip, zstd",
        ],
    ),
    (
        "compressed is a number",
        packed(b"\xc4" + size(1), option=opt(compressed=7)),
        [Announced(len(ENTRIES)), ProtocolError, "unknown compression"],
    ),
    # Forward
    (
        "Forward",
        forward(b"\x92\x01\x80", b"\x92\x02\x80"),
        [Chunk("t", b"\x92\x01\x80\x92\x02\x80", 2, None, None)],
    ),
    (
        "Forward fixarray",
        b"\x92\xa1t\x91\x92\x01\x80",
        [Chunk("t", b"\x92\x01\x80", 1, None, None)],
    ),
    (
        "Forward array32",
        b"\x92\xa1t\xdd\0\0\0\x01\x92\x01\x80",
        [Chunk("t", b"\x92\x01\x80", 1, None, None)],
    ),
    ("Forward empty", b"\x92\xa1t\x90", [Chunk("t", b"", 0, None, None)]),
    (
        "Forward, its own count",
        forward(b"\x92\x01\x80", option=opt(size=9, chunk="c", compressed="gzip")),
        [Chunk("t", b"\x92\x01\x80", 1, None, b"\xa1c")],
    ),
    ("Forward long string", forward(LONG), [Chunk("t", LONG, 1, None, None)]),
    (
        "Forward deep",
        forward(b"\x92\x01" + DEEP, b"\x92\x02\x80", option=opt(chunk="c")),
        [Chunk("t", b"\x92\x01" + DEEP + b"\x92\x02\x80", 2, None, b"\xa1c")],
    ),
    ("Forward not msgpack", forward(b"\x92\x01\xc1"), [ProtocolError, "'t': not msgpack"]),
    (
        "Forward too large",
        forward(LONG, LONG),
        [MessageTooLarge, f"'t' is over the limit of {LIMIT} bytes"],
    ),
    (
        "Forward deep, then not msgpack",
        forward(b"\x92\x01" + DEEP, b"\xc1"),
        [ProtocolError, "'t': not msgpack"],
    ),
    # Message
    ("Message", message(b"\xce\x65\x00\x00\x00"), one(b"\xce\x65\x00\x00\x00")),
    (
        "Message EventTime",
        message(b"\xd7\x00" + bytes(range(8))),
        one(b"\xd7\x00" + bytes(range(8))),
    ),
    (
        "Message EventTime c7",
        message(b"\xc7\x08\x00" + bytes(range(8))),
        one(b"\xc7\x08\x00" + bytes(range(8))),
    ),
    ("Message float", message(b"\xcb" + b"\x40" * 8), one(b"\xcb" + b"\x40" * 8)),
    ("Message time 0", message(b"\x00"), one(b"\xd7\x00" + NOW.to_bytes())),
    ("Message time 0 uint64", message(b"\xcf" + bytes(8)), one(b"\xd7\x00" + NOW.to_bytes())),
    (
        "Message EventTime 0",
        message(b"\xd7\x00\0\0\0\0\0\0\0\x07"),
        one(b"\xd7\x00" + NOW.to_bytes()),
    ),
    ("Message time 1", message(b"\x01"), one(b"\x01")),
    ("Message ack", message(b"\x01", option=opt(chunk="c\n")), one(b"\x01", ack=b"\xa2c\n")),
    ("Message deep", message(b"\x01", DEEP), one(b"\x01", DEEP)),
    ("Message map16", message(b"\x01", b"\xde\0\x00"), one(b"\x01", b"\xde\0\x00")),
    ("Message time nil", message(b"\xc0"), [NotAnEvent, "'t': its time is neither"]),
    ("Message time is a map", message(b"\x80"), [NotAnEvent, "'t': its time is neither"]),
    ("Message ext of another type", message(b"\xd7\x01" + bytes(8)), [NotAnEvent, "no EventTime"]),
    (
        "Message ext of another length",
        message(b"\xd6\x00" + bytes(4)),
        [NotAnEvent, "no EventTime"],
    ),
    ("Message ext of 4 GB", message(b"\xc9\xff\xff\xff\xff\x00"), [NotAnEvent, "no EventTime"]),
    ("Message record is a list", message(b"\x01", b"\x90"), [NotAnEvent, "record is no map"]),
    (
        "Message record not msgpack",
        message(b"\x01", b"\x81\xc1\x01"),
        [ProtocolError, "not msgpack"],
    ),
    ("Message without a record", b"\x92\xa1t\x01", [NotAnEvent, "neither entries nor time"]),
    ("Message too long", b"\x95\xa1t\x01\x80\x80", [NotAnEvent, "after its option"]),
    # not the protocol
    ("JSON array", b'["t", 1, {}]', [ProtocolError, "JSON is not accepted, send msgpack"]),
    ("JSON object", b'{"a": 1}', [ProtocolError, "JSON is not accepted, send msgpack"]),
    ("TLS", b"\x16\x03\x01", [ProtocolError, "0x16: it looks like TLS"]),
    ("HTTP", b"GET / HTTP/1.1", [ProtocolError, "byte 0x47: a message is a msgpack array"]),
    ("after a good one", PLAIN + b"\x01", [*chunk(), ProtocolError, "0x01"]),
    ("map", b"\x80", [ProtocolError, "0x80"]),
    ("0xc1", b"\xc1", [ProtocolError, "0xc1"]),
    ("array of none", b"\x90\xa1t\x90", [NotAnEvent, "no entries"]),
    ("array of one", b"\x91\xa1t\x90", [NotAnEvent, "no entries"]),
    ("array of 4 billion", b"\xdd\xff\xff\xff\xff\xa1t\x90", [NotAnEvent, "after its option"]),
    (
        "entries of 4 GB",
        b"\x92\xa1t\xc6\xff\xff\xff\xff",
        [MessageTooLarge, "'t' has 4294967295 bytes of entries, the limit is 262144"],
    ),
    # the end within a message
    ("cut in the head", b"\x92\xa5t", ["eof"]),
    (
        "cut before the payload",
        packed(b"\xc4" + size(1), entries=b""),
        [Announced(len(ENTRIES)), "eof"],
    ),
    ("cut in the payload", PLAIN[:-1], [Announced(len(ENTRIES)), "eof"]),
    (
        "cut before the option",
        packed(b"\xc4" + size(1), parts=b"\x93"),
        [Announced(len(ENTRIES)), "eof"],
    ),
    ("cut in Forward", forward(b"\x92\x01\x80", b"\x92\x02"), ["eof"]),
    ("Forward of 4 billion", b"\x92\xa1t\xdd\xff\xff\xff\xff\x92\x01\x80", ["eof"]),
    ("cut in a deep one", forward(b"\x92\x01" + DEEP[:-1]), ["eof"]),
]


def drive(pieces, *, limit=LIMIT, auth=None):
    receiver = Receiver(max_message_bytes=limit, auth=auth, clock=lambda: NOW)
    events = []
    for piece in pieces:
        receiver.receive(piece)
        try:
            while (event := receiver.next_event()) is not None:
                events.append(event)
        except ProtocolError as error:
            assert not receiver.eof()
            with pytest.raises(type(error)):
                receiver.next_event()
            return [*events, type(error), str(error)]
    return [*events, "eof"] if receiver.eof() else events


def cut(data, seed):
    rng = random.Random(seed)
    pieces = []
    while data:
        count = rng.choice((1, 2, 7, 100, 5000))
        pieces.append(data[:count])
        data = data[count:]
    return pieces


def check(found, expected):
    if expected and isinstance(expected[-2:][0], type):
        assert found[:-1] == expected[:-1]
        assert expected[-1] in found[-1]
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("data", "expected"), [pytest.param(*case[1:], id=case[0]) for case in CASES]
)
@pytest.mark.parametrize("how", ["whole", "bytes", "random"])
def test_case(data, expected, how):
    if how == "whole":
        check(drive([data]), expected)
    elif how == "bytes":
        check(drive(data[at : at + 1] for at in range(len(data))), expected)
    else:
        for seed in range(5):
            check(drive(cut(data, seed)), expected)


def test_all_good_cases_on_one_connection():
    good = [case for case in CASES if not any(isinstance(part, type | str) for part in case[2])]
    data = b"".join(case[1] for case in good)
    expected = [event for case in good for event in case[2]]
    assert len(good) > 40
    assert drive([data]) == expected
    assert drive(cut(data, 1)) == expected


@settings(deadline=None, max_examples=400)
@given(data=st.data())
def test_mutations_give_events_or_protocol_errors_and_the_same_in_pieces(data):
    original = bytearray(
        data.draw(st.sampled_from([case[1] for case in CASES if len(case[1]) < 5000]))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(original)))
        original[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    whole = drive([bytes(original)])
    assert drive(original[at : at + 1] for at in range(len(original))) == whole


@settings(deadline=None, max_examples=400)
@given(st.binary(max_size=200))
def test_any_bytes(data):
    assert drive(cut(data, 0)) == drive([data])


def test_entries_of_a_packed_message_are_received_where_they_stay():
    entries = bytes(3 << 20)
    head, _, option = packed_forward("t", entries, count=7, chunk_id="c")
    receiver = Receiver(max_message_bytes=1 << 24)
    receiver.receive(head)
    assert receiver.tag == "t" or receiver.next_event() == Announced(len(entries))
    assert receiver.tag == "t"
    assert receiver.next_event() is None
    held = []  # as uvloop holds the view while it calls buffer_updated
    sizes = []
    left = len(entries)
    while left:
        view = receiver.get_buffer()
        count = min(len(view), left, 300_000)
        held.append(view)
        sizes.append(view.nbytes)
        receiver.buffer_updated(count)
        left -= count
        assert receiver.next_event() is None
        assert receiver.pending_bytes == len(head) + len(entries) - left
    assert sizes[0] == 1 << 20  # believed as it comes true
    last = held[-1].obj
    receiver.receive(option)
    chunk = receiver.next_event()
    assert chunk.entries is last
    assert len(chunk.entries) == len(entries)
    assert receiver.pending_bytes == 0
    assert receiver.tag is None


def test_announced_comes_before_anything_is_allocated():
    receiver = Receiver(max_message_bytes=1 << 30)
    tracemalloc.start()
    try:
        receiver.receive(b"\x92\xa1t\xc6\x3f\xff\xff\xff")
        assert receiver.next_event() == Announced(0x3FFFFFFF)
        assert receiver.next_event() is None
        receiver.receive(bytes(100))
        assert receiver.next_event() is None
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


def test_waiting_after_announced_loses_nothing():
    receiver = Receiver(max_message_bytes=1 << 24)
    entries = random.Random(1).randbytes(200_000)
    data = b"".join(packed_forward("t", entries, count=None, chunk_id=None)) * 2
    receiver.receive(data[:20])
    assert receiver.next_event() == Announced(len(entries))
    receiver.receive(data[20:])  # what TLS had decrypted already
    assert receiver.next_event() == Chunk("t", entries, None, None, None)
    assert receiver.next_event() == Announced(len(entries))
    assert receiver.next_event() == Chunk("t", entries, None, None, None)
    assert receiver.next_event() is None


@pytest.mark.parametrize("half", [b"", b"\x92\xa1t"], ids=["nothing", "half a message"])
def test_memory_of_a_long_message_is_given_back(half):
    """Also where messages follow each other so closely that the buffer is never empty."""
    receiver = Receiver(max_message_bytes=1 << 24)
    data = forward(pack_entries([(1, {"x": "x" * 3_000_000})]))
    receiver.receive(data[:-1])
    assert receiver.next_event() is None
    assert len(receiver.get_buffer().obj) > len(data)
    receiver.receive(data[-1:] + half)
    assert receiver.next_event().count == 1
    assert receiver.next_event() is None
    assert receiver.pending_bytes == len(half)
    if half:
        room = len(receiver.get_buffer())
        assert room > 64 << 10
        receiver.receive(b"\x90" + b"\xc0" * (room - 1 - len(half)) + half)
        assert receiver.next_event().count == 0
        assert receiver.next_event() is None
    assert len(receiver.get_buffer().obj) == 64 << 10


def test_what_comes_after_an_error_is_dropped():
    receiver = Receiver(max_message_bytes=1000)
    receiver.receive(b"{")
    with pytest.raises(ProtocolError, match="JSON"):
        receiver.next_event()
    for _ in range(100):
        receiver.receive(bytes(10_000))
    assert len(receiver.get_buffer().obj) == 64 << 10


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "deep"])
def test_byte_by_byte_takes_time_in_proportion(nested):
    def seconds(count):
        inner = DEEP if nested else b"\x80"
        data = forward(b"\x92\x01" + inner, *[b"\x92\x01\x81\xa1a\xa5hello"] * count)
        best = 9.0
        for _ in range(3):
            began = time.process_time()
            assert len(drive((data[at : at + 1] for at in range(len(data))), limit=1 << 24)) == 1
            best = min(best, time.process_time() - began)
        return best

    assert seconds(8000) < 25 * seconds(800)  # 100 times if every byte were looked at anew


def test_a_receiver_is_freed_without_the_cycle_collector():
    gc.disable()
    try:
        receiver = Receiver(max_message_bytes=1000)
        receiver.receive(b"\x92\xa1t")
        assert receiver.next_event() is None
        gone = weakref.ref(receiver)
        del receiver
        assert gone() is None
    finally:
        gc.enable()


# The handshake

AUTH = ServerAuth(shared_key="key", hostname="sidecar", users={"ann": "pässword", "bob": "b"})
CLIENT = {"shared_key": "key", "hostname": "client", "username": "ann", "password": "pässword"}


def ping(auth, **changes):
    """Return a receiver's HELO, as read, and a client's PING to it."""
    receiver = Receiver(max_message_bytes=LIMIT, auth=auth)
    helo = Helo.decode(msgpack.unpackb(receiver.start(), raw=True))
    return receiver, helo, ClientAuth(**CLIENT | changes).ping(helo)


def events_of(receiver, data):
    """Feed byte by byte."""
    events = []
    for at in range(len(data)):
        receiver.receive(data[at : at + 1])
        while (event := receiver.next_event()) is not None:
            events.append(event)
    return events


def test_handshake():
    receiver, helo, answer = ping(AUTH)
    assert len(receiver.start()) < 512
    assert receiver.start() == receiver.start()
    assert helo.keepalive
    assert len(helo.nonce) == len(helo.auth) == 16
    pong, announced, received = events_of(receiver, answer.encode() + PLAIN)
    assert msgpack.unpackb(pong.data)[:4] == ["PONG", True, "", "sidecar"]
    assert [announced, received] == chunk()


def test_handshake_without_users():
    auth = ServerAuth(shared_key="key", hostname="sidecar")
    receiver, helo, answer = ping(auth, username="")
    assert helo.auth == b""
    (pong,) = events_of(receiver, answer.encode())
    assert msgpack.unpackb(pong.data)[1] is True


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"shared_key": "other"}, "shared_key mismatch"),
        ({"username": "eve"}, "username/password mismatch"),
        ({"username": "eve", "password": ""}, "username/password mismatch"),
        ({"password": "b"}, "username/password mismatch"),
        ({"username": "bob"}, "username/password mismatch"),
    ],
)
def test_handshake_refused(changes, reason):
    receiver, _, answer = ping(AUTH, **changes)
    receiver.receive(answer.encode() + PLAIN)
    pong = receiver.next_event()
    assert msgpack.unpackb(pong.data) == ["PONG", False, reason, "", ""]
    with pytest.raises(AuthenticationError, match=f"{reason}: set the same shared key"):
        receiver.next_event()


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        message(b"\x01"),
        b"\xc0",
        b"GET / HTTP/1.1",
        msgpack.packb(["PING", "a", "b", "c", "d"]),
        msgpack.packb(["PONG", "a", "b", "c", "d", "e"]),
        msgpack.packb(["PING", "a", "b", "c", "d", 1]),
        msgpack.packb(["PING", "a", "b", "c", "d", {}]),
        msgpack.packb(["PING", "a", "b", "c", "d", ["x"] * 100]),
        msgpack.packb(
            ["PING", b"\xff", "\udcff".encode("utf-8", "surrogateescape"), "c", "d", "e"]
        ),
        b"\x96" + b"\xd6\xff\0\0\0\0" * 6,
        b"\x96" + b"\x91" * 2000 + b"\x01" * 6,
    ],
)
def test_what_is_no_ping_is_refused(data):
    for pieces in ([data], cut(data, 1)):
        *events, error, text = drive(pieces, auth=AUTH)
        assert error is AuthenticationError
        assert "invalid ping message" in text or "shared_key mismatch" in text
        assert "both ends" in text
        (pong,) = events
        accepted, reason = msgpack.unpackb(pong.data)[1:3]
        assert accepted is False
        assert len(reason) < 32


def test_a_long_ping_is_refused():
    data = msgpack.packb(["PING", "x" * 5000, "b", "c", "d", "e"])
    assert drive([data], auth=AUTH)[0] is MessageTooLarge
    assert drive(cut(data, 1), auth=AUTH)[0] is MessageTooLarge


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=100), st.booleans())
def test_any_bytes_before_the_handshake(data, array):
    for event in drive([b"\x96\xa4PING" * array + data], auth=AUTH):
        assert not isinstance(event, Chunk | Announced)
        if isinstance(event, SendBytes):
            assert msgpack.unpackb(event.data)[1] is False


def test_ack_message():
    assert msgpack.unpackb(ack_message(b"\xa4abc\n")) == {"ack": "abc\n"}
