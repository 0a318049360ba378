"""A batch is cut between events, and only where that changes nothing."""

import msgpack
import pytest
from grpc_rig import events, large
from hypothesis import given
from hypothesis import strategies as st

from bridge.decoding import boundaries
from bridge.rpc import cutting
from bridge.rpc.cutting import Uncut, cut
from bridge.workers.wire import Filter


@given(
    sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=60),
    most=st.integers(1, 8),
    hint=st.sampled_from([None, 0, -3, 3]),
)
def test_pieces_are_whole_events_in_order(sizes, most, hint):
    entries = events(*({"x": "y" * size} for size in sizes))
    count = None if hint is None else max(len(sizes) + hint, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "SMALLEST_PIECE", 100)
        pieces = cut(memoryview(entries), count, most)
    assert b"".join(piece.entries for piece in pieces) == entries
    assert 1 <= len(pieces) <= most
    edges = set(boundaries(entries))
    position = 0
    for piece in pieces:
        assert len(piece.entries)
        position += len(piece.entries)
        assert position in edges
    for piece in pieces[:-1]:
        assert piece.count == len(boundaries(piece.entries)) - 1
    if hint is None:
        assert len(pieces) == 1 or pieces[-1].count is None
    if hint == 0:
        assert sum(piece.count for piece in pieces) == len(sizes)


def test_pieces_are_of_about_the_same_size():
    pieces = cut(memoryview(large()), None, 4)
    sizes = [len(piece.entries) for piece in pieces]
    assert len(sizes) == 4
    assert max(sizes) - min(sizes) < 500


def deep(levels):
    return b"\x92\x01\x81\xa1x" + b"\x91" * levels + b"\x01"


@pytest.mark.parametrize(
    "entries",
    [
        b"",
        b"\x92\x01\x80" * 1000,  # small
        b"\xc1" + large(),
        deep(2000) + large(),  # deeper than the unpacker goes
        msgpack.packb([1, {"x": "y" * 500_000}]),  # one event
        events({}) + msgpack.packb([1, {"x": "y" * 500_000}])[:-1],  # it ends in an event
    ],
)
def test_what_stays_whole(entries):
    (piece,) = cut(memoryview(entries), 7, 4)
    assert bytes(piece.entries) == entries
    assert piece.count == 7


@pytest.mark.parametrize(
    ("filters", "tag", "uncut"),
    [
        ([], "a", False),
        ([("a", False)], "a", False),
        ([("a", True)], "a", True),
        ([("a", True)], "b", False),
        ([("b", True), ("a", False)], "a", False),  # none that stands before it is ever reached
        ([("a", False), ("b", True)], "a", True),  # the first may give an event the tag b
        ([("b", False), ("a", False), ("b", True), ("c", False)], "a", True),
        ([("b", False), ("a", False), ("b", True), ("c", False)], "c", False),
        ([("x.** {a,b}", True)], "b", True),
    ],
)
def test_tags_that_a_filter_over_all_events_may_see(filters, tag, uncut):
    known = Uncut([Filter(str(i), pattern, batch) for i, (pattern, batch) in enumerate(filters)])
    assert (tag in known) is uncut
    assert (tag in known) is uncut, "remembered"
