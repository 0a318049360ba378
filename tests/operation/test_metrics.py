"""What is rendered is what Prometheus reads, by its conventions."""

import logging
import re

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
from prometheus_client.parser import text_string_to_metric_families as read_text

from bridge import instruments
from bridge.metrics import Metrics

OPEN = "application/openmetrics-text; version=1.0.0"
ATTRIBUTES = {
    "connections": (),
    "connections_closed": ("eof",),
    "received_chunks": (),
    "received_bytes": (),
    "received_events": (),
    "emitted_events": (),
    "dropped_events": (),
    "error_events": (),
    "duplicate_chunks": (),
    "handed_back_chunks": (),
    "retried_chunks": ("deadline",),
    "in_flight_bytes": (),
    "in_flight_limit_bytes": (),
    "queue_chunks": (),
    "queue_wait_seconds": (),
    "workers": (),
    "worker_restarts": ("killed",),
    "worker_chunk_seconds": ("0",),
    "worker_cpu_seconds": ("0",),
    "worker_resident_bytes": ("0",),
    "filter_seconds": ("enrich",),
    "filter_events": ("enrich",),
    "filter_dropped": ("enrich",),
    "filter_errors": ("enrich",),
    "filter_reloads": ("ok",),
    "filters_outdated": (),
    "filters_loaded": (),
    "downstream_connections": (),
    "delivery_seconds": (),
    "delivery_retries": (),
    "rpc_calls": ("Process", "OK"),
    "rpc_calls_in_progress": (),
    "rpc_call_seconds": ("Process",),
}


@pytest.fixture
def metrics():
    return Metrics()


def touch(metrics):
    """Count something in every metric, so that none is without a sample."""
    for name, labels in ATTRIBUTES.items():
        metric = getattr(metrics, name)
        child = metric.labels(*labels) if labels else metric
        (getattr(child, "observe", None) or child.inc)(1)


def families(metrics, accept=""):
    body, _ = metrics.render(accept)
    return {family.name: family for family in (read_open if accept else read_text)(body.decode())}


@pytest.mark.parametrize("accept", ["", OPEN])
def test_every_metric_is_read_back(metrics, accept):
    touch(metrics)
    found = families(metrics, accept)
    ours = {name: family for name, family in found.items() if name.startswith("fluent_bridge_")}
    assert len(ours) == len(ATTRIBUTES) + 2, "one more for the build, one for the filters"
    for family in ours.values():
        counts = [
            sample.value
            for sample in family.samples
            if not sample.name.endswith(("_bucket", "_sum"))
        ]
        assert [count for count in counts if count] == [1.0], family.name


@pytest.mark.parametrize("accept", ["", OPEN])
def test_names_follow_the_conventions(metrics, accept):
    touch(metrics)
    for name, family in families(metrics, accept).items():
        assert re.fullmatch(r"(fluent_bridge|process)_[a-z_]+", name)
        assert family.documentation.endswith("."), name
        assert not re.search(r"milli|micro|minutes|kilo|mega|ratio_percent|_ms$", name), name
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name
            assert not sample.name.endswith("_created")
        if family.type == "histogram":
            assert name.endswith("_seconds")
        if "bytes" in name or "seconds" in name:
            assert name.endswith(("_bytes", "_seconds", "_fds")), name


def test_content_types(metrics):
    assert metrics.render()[1].startswith("text/plain; version=0.0.4")
    assert metrics.render(OPEN)[1].startswith("application/openmetrics-text; version=1.0.0")


def test_two_sidecars_in_one_process_do_not_meet():
    one, other = Metrics(), Metrics()
    one.received_events.inc(5)
    assert families(other)["fluent_bridge_received_events"].samples[0].value == 0


def clicks(*samples, name="clicks", labels=("country",)):
    return [name, "Clicks seen.", "counter", list(labels), [], list(samples)]


def prices(*samples, buckets=(1, 5)):
    return ["price_euros", "Prices seen.", "histogram", ["country"], list(buckets), list(samples)]


@pytest.mark.parametrize("accept", ["", OPEN])
def test_instruments_of_several_workers_add_up(metrics, accept):
    metrics.add_instruments([clicks([["de"], 3]), prices([["de"], [1, 0, 1, 9.5, 2]])])
    metrics.add_instruments([clicks([["de"], 4], [["fr"], 1]), prices([["de"], [0, 2, 0, 4, 2]])])
    found = families(metrics, accept)
    assert {s.labels["country"]: s.value for s in found["clicks"].samples} == {"de": 7, "fr": 1}
    price = {
        (sample.name, sample.labels.get("le")): sample.value
        for sample in found["price_euros"].samples
    }
    assert price == {
        ("price_euros_bucket", "1.0"): 1,
        ("price_euros_bucket", "5.0"): 3,
        ("price_euros_bucket", "+Inf"): 4,
        ("price_euros_sum", None): 13.5,
        ("price_euros_count", None): 4,
    }
    assert found["price_euros"].documentation == "Prices seen."


def test_a_counter_is_one_with_and_without_its_suffix(metrics):
    metrics.add_instruments([clicks([["de"], 1]), clicks([["de"], 1], name="clicks_total")])
    assert [sample.value for sample in families(metrics)["clicks"].samples] == [2]


@pytest.mark.parametrize(
    ("delta", "reason"),
    [
        (clicks(name="fluent_bridge_received_events"), "names that begin with fluent_bridge_"),
        (clicks(name="process_cpu_seconds_total"), "names that begin with process_"),
        (clicks(name="my-clicks"), "letters, digits and underscores"),
    ],
)
def test_a_name_that_cannot_be_used_is_left_out_and_said_once(metrics, caplog, delta, reason):
    with caplog.at_level(logging.WARNING):
        metrics.add_instruments([delta, clicks([["de"], 1])])
        metrics.add_instruments([delta])
    assert [reason in record.getMessage() for record in caplog.records] == [True]
    assert families(metrics)["clicks"].samples[0].value == 1


def test_a_metric_that_a_reload_changed_begins_again(metrics):
    metrics.add_instruments([clicks([["de"], 3]), prices([["de"], [1, 0, 1, 9.5, 2]])])
    metrics.add_instruments([clicks([["de", "web"], 1], labels=("country", "site"))])
    metrics.add_instruments([prices([["de"], [1, 1, 1]], buckets=(2,))])
    found = families(metrics)
    assert found["clicks"].samples[0].labels == {"country": "de", "site": "web"}
    assert [s.labels["le"] for s in found["price_euros"].samples if "le" in s.labels] == [
        "2.0",
        "+Inf",
    ]


def test_what_a_worker_drains_is_what_is_shown(metrics):
    seen = instruments.counter("operation_pages_total", "Pages seen.", ["site"])
    took = instruments.histogram("operation_lookup_seconds", "Lookups.", buckets=(0.1, 1))
    instruments.drain()  # what other tests left
    for _ in range(2):
        seen.inc(2, site="a.example")
        for seconds in (0.05, 0.1, 0.5, 3):
            took.observe(seconds)
        sent = msgspec.msgpack.encode(instruments.drain())
        metrics.add_instruments(msgspec.msgpack.decode(sent))
    found = families(metrics)
    (pages,) = found["operation_pages"].samples
    assert (pages.labels, pages.value) == ({"site": "a.example"}, 4)
    values = {(s.name[25:], s.labels.get("le")): s.value for s in found["operation_lookup_seconds"].samples}  # fmt: skip
    assert values == {
        ("bucket", "0.1"): 4,
        ("bucket", "1.0"): 6,
        ("bucket", "+Inf"): 8,
        ("sum", None): pytest.approx(7.3),
        ("count", None): 8,
    }
