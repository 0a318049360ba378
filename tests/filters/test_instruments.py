"""Counters and histograms of the users' own."""

import math

import msgspec
import pytest

from bridge import instruments


@pytest.fixture(autouse=True)
def none_known(monkeypatch):
    monkeypatch.setattr(instruments, "_known", {})


def test_a_counter_counts_by_labels_and_is_drained_once():
    clicks = instruments.counter("clicks_total", "Clicks.", labels=("country",))
    idle = instruments.counter("idle_total", "Nothing.")
    clicks.inc(country="DE")
    clicks.inc(2.5, country="DE")
    clicks.inc(country=7)
    assert instruments.drain() == [
        ("clicks_total", "Clicks.", "counter", ("country",), (), [(("DE",), 3.5), (("7",), 1.0)])
    ]
    assert instruments.drain() == []
    idle.inc()
    assert [one[0] for one in instruments.drain()] == ["idle_total"]


def test_a_histogram_gives_buckets_sum_and_count():
    sizes = instruments.histogram("size_bytes", "Sizes.", buckets=(1, 10, math.inf))
    for value in (0.5, 1, 2, 10, 11):
        sizes.observe(value)
    assert instruments.drain() == [
        ("size_bytes", "Sizes.", "histogram", (), (1.0, 10.0), [((), [2.0, 2.0, 24.5, 5.0])])
    ]


def test_what_is_drained_can_be_packed_whatever_the_labels_hold():
    instruments.counter("x_total", "X.", labels=["tag"]).inc(tag="\udcff")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(instruments.drain())) == [
        ["x_total", "X.", "counter", ["tag"], [], [[["\\udcff"], 1.0]]]
    ]


def test_the_same_again_is_the_same():
    first = instruments.counter("a_total", "A.", labels=("b",))
    assert instruments.counter("a_total", "A.", labels=["b"]) is first


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: instruments.counter("no-dashes", "X."), "no name to Prometheus"),
        (lambda: instruments.counter("1st", "X."), "no digit first"),
        (lambda: instruments.counter("ok", "X.", labels=("a b",)), "no name to Prometheus"),
        (lambda: instruments.counter("ok", "X.", labels="ab"), "('ab',)"),
        (lambda: instruments.counter("ok", "X.", labels=("a", "a")), "twice"),
        (lambda: instruments.histogram("ok", "X.", labels=("le",)), "Prometheus' own"),
        (lambda: instruments.counter("ok", "X.", labels=("__a",)), "Prometheus' own"),
        (lambda: instruments.counter("fluent_bridge_x", "X."), "the sidecar's"),
        (lambda: instruments.histogram("ok", "X.", buckets=(2, 1)), "must rise"),
        (lambda: instruments.histogram("ok", "X.", buckets=()), "must rise"),
        (lambda: instruments.counter("taken", "Other."), "already"),
        (lambda: instruments.counter("taken_total", "T."), "already"),
        (lambda: instruments.histogram("taken", "T."), "already"),
    ],
)
def test_what_is_refused(make, says):
    instruments.counter("taken", "T.")
    with pytest.raises(ValueError) as raised:
        make()
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (lambda: instruments.counter("a", "A.").inc(-1), "cannot be lowered"),
        (lambda: instruments.counter("a", "A.").inc(b="c"), "has the labels (), not (b)"),
        (lambda: instruments.counter("a", "A.", ("b",)).inc(), "has the labels (b), not ()"),
        (lambda: instruments.counter("a", "A.", ("b",)).inc(b=1, c=2), "not (b, c)"),
        (lambda: instruments.histogram("a", "A.", ("b",)).observe(1, c=2), "not (c)"),
    ],
)
def test_wrong_use(use, says):
    with pytest.raises(ValueError) as raised:
        use()
    assert says in str(raised.value)
    assert instruments.drain() == []
