"""The client's role."""

import contextlib
import hashlib
import random

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import AuthenticationError, MessageTooLarge, ProtocolError
from bridge.forward import (
    Acked,
    ClientAuth,
    Ready,
    Receiver,
    SendBytes,
    Sender,
    ServerAuth,
    packed_forward,
)

CLIENT = ClientAuth(shared_key="key", hostname="client", username="ann", password="secret")
HELO = msgpack.packb(["HELO", {"nonce": b"n" * 16, "auth": b"", "keepalive": True}])
ACKS = [Acked(b"abc\n"), Acked(b"\xff"), Acked(b"")]
ACKED = (
    msgpack.packb({"ack": "abc\n"}) + msgpack.packb({"ack": b"\xff", "x": 1}) + b"\x81\xa3ack\xa0"
)

# name, bytes to a sender that is ready, what comes out: events, then the error if there is one
CASES = [
    ("nothing", b"", []),
    ("acks", ACKED, ACKS),
    ("many acks", ACKED * 4000, ACKS * 4000),
    ("half an ack", ACKED[:-1], ACKS[:2]),
    ("ack is a number", b"\x81\xa3ack\x01", [ProtocolError, "no acknowledgement"]),
    ("another map", b"\x81\xa3abc\xa0", [ProtocolError, "no acknowledgement"]),
    ("nil", b"\xc0", [ProtocolError, "no acknowledgement"]),
    ("text", b"HTTP/1.1 400", [ProtocolError, "no acknowledgement"]),
    ("0xc1", b"\xc1", [ProtocolError, "not the Forward protocol"]),
    ("key is a map", b"\x81\x80\x01", [ProtocolError, "not the Forward protocol"]),
    ("too deep", b"\x91" * 2000, [ProtocolError, "not the Forward protocol"]),
    ("too wide", b"\xdd\x00\x00\xff\xff" * 1000, [ProtocolError, "not the Forward protocol"]),
    (
        "too long",
        b"\xdb\x00\xff\xff\xff" + bytes(200_000),
        [ProtocolError, "not the Forward protocol"],
    ),
    ("HELO", HELO, [AuthenticationError, "asks for a shared key: set it"]),
]


def drive(pieces):
    sender = Sender()
    events = sender.start()
    assert events == [Ready()]
    assert sender.ready
    events = []
    try:
        for piece in pieces:
            events += sender.receive(piece)
    except ProtocolError as error:
        return [*events, type(error), str(error)]
    return events


@pytest.mark.parametrize(
    ("data", "expected"), [pytest.param(*case[1:], id=case[0]) for case in CASES]
)
def test_case(data, expected):
    rng = random.Random(1)
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(50))
    ways = [
        [data],
        [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)],
        (data[at : at + 1] for at in range(len(data))),
    ]
    for pieces in ways:
        found = drive(pieces)
        if expected and isinstance(expected[0], type):
            assert found[:-1] == expected[:-1]
            assert expected[-1] in found[-1]
        else:
            assert found == expected


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=100), st.booleans(), st.booleans())
def test_any_bytes(data, auth, helo):
    sender = Sender(CLIENT if auth else None)
    sender.start()
    with contextlib.suppress(ProtocolError):
        sender.receive(HELO * helo + data)


def sha512(*parts):
    return hashlib.sha512(b"".join(parts)).hexdigest()


def test_digests_are_those_of_the_specification():
    """Computed here from the text of the specification, both ways."""
    sender = Sender(CLIENT)
    assert sender.start() == []
    helo = msgpack.packb(["HELO", {"nonce": b"nonce", "auth": b"salt", "keepalive": True}])
    (ping,) = sender.receive(helo)
    message = msgpack.unpackb(ping.data)
    salt = message[2].encode()
    assert message == [
        "PING",
        "client",
        message[2],
        sha512(salt, b"client", b"nonce", b"key"),
        "ann",
        sha512(b"salt", b"ann", b"secret"),
    ]
    assert not sender.ready
    proof = sha512(salt, b"server", b"nonce", b"key")
    assert sender.receive(msgpack.packb(["PONG", True, "", "server", proof])) == [Ready()]
    assert sender.receive(ACKED) == ACKS


@pytest.mark.parametrize(
    ("pong", "error", "text"),
    [
        (
            ["PONG", False, "shared_key mismatch", "", ""],
            AuthenticationError,
            "refused: shared_key",
        ),
        (["PONG", False, "", "", ""], AuthenticationError, "no reason"),
        (["PONG", True, "", "server", "0" * 128], AuthenticationError, "does not know the key"),
        (["PONG", True, ""], ProtocolError, "no PONG"),
        ({"ack": "x"}, ProtocolError, "no PONG"),
    ],
)
def test_bad_pong(pong, error, text):
    sender = Sender(CLIENT)
    sender.receive(HELO)
    with pytest.raises(error, match=text):
        sender.receive(msgpack.packb(pong))
    assert not sender.ready


@pytest.mark.parametrize("helo", [["HELO"], ["HELO", []], ["HELO", {"nonce": 1}], {"ack": "x"}, 7])
def test_bad_helo(helo):
    with pytest.raises(ProtocolError, match="no HELO"):
        Sender(CLIENT).receive(msgpack.packb(helo))


def test_a_server_that_asks_for_a_user():
    sender = Sender(ClientAuth(shared_key="key", hostname="client"))
    with pytest.raises(AuthenticationError, match="set the user name"):
        sender.receive(msgpack.packb(["HELO", {"nonce": b"n", "auth": b"salt"}]))


@pytest.mark.parametrize("users", [{}, {"ann": "secret"}])
def test_both_roles_together(users):
    receiver = Receiver(
        max_message_bytes=1000, auth=ServerAuth(shared_key="key", hostname="server", users=users)
    )
    sender = Sender(CLIENT)
    to_client, ready = receiver.start(), False
    while not ready:
        to_server = b""
        for event in sender.receive(to_client):
            if isinstance(event, SendBytes):
                to_server += event.data
            ready |= event == Ready()
        receiver.receive(to_server)
        to_client = b""
        while (event := receiver.next_event()) is not None:
            to_client += event.data
    receiver.receive(b"".join(packed_forward("t", b"\x92\x01\x80", count=1, chunk_id=b"id")))
    assert receiver.next_event().size == 3
    assert receiver.next_event().ack == b"\xa2id"


def test_secrets_are_not_shown():
    assert "secret" not in repr(CLIENT)
    assert "key" not in repr(CLIENT).replace("shared_key", "")
    auth = ServerAuth(shared_key="key", hostname="server", users={"ann": "secret"})
    assert "secret" not in repr(auth)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"count": 2}, {"size": 2}),
        ({"chunk_id": "é\n"}, {"chunk": "é\n"}),
        ({"chunk_id": b"abc="}, {"chunk": "abc="}),
        (
            {"count": 0, "compressed": "zstd", "chunk_id": "x"},
            {"size": 0, "compressed": "zstd", "chunk": "x"},
        ),
    ],
)
def test_packed_forward(options, expected):
    entries = memoryview(bytearray(b"\x92\x01\x80"))
    head, body, option = packed_forward("tag.\udcff", entries, **options)
    assert body is entries
    tag, packed, found = msgpack.unpackb(
        head + bytes(body) + option, unicode_errors="surrogateescape"
    )
    assert (tag, packed, found) == ("tag.\udcff", b"\x92\x01\x80", expected)


def test_entries_that_the_format_cannot_hold():
    class Huge(bytes):
        def __len__(self):
            return 1 << 32

    with pytest.raises(MessageTooLarge, match="under tag 't': send smaller chunks"):
        packed_forward("t", Huge(), count=1)
