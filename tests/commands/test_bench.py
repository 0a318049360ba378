"""``fluent-bridge bench``: that it measures what a worker does, and says what distorts it."""

import gc
import json
import os
from collections import Counter

import pytest

from bridge.cli import main
from bridge.cli._profile import Advice
from bridge.events import EventTime
from bridge.forward import codec
from bridge.loading import load
from bridge.pipeline import Pipeline
from bridge.profile import Profile, measure, prepare
from bridge.profile.timed import TimedPipeline
from bridge.samples import read
from bridge.workers.process import Gatherer

FILTERS = """
import asyncio
import os
import pathlib
import time
import bridge
import msgspec

pathlib.Path(__file__).with_name(f"loaded-{os.getpid()}").touch()

@bridge.filter("ad.**")
def enrich(record: dict) -> dict | None:
    record["seen"] = True
    return record

@bridge.filter("ad.**")
def some(record: dict) -> dict | None:
    if record.get("id", 0) % 10 == 3:
        return None
    if record.get("id", 0) % 10 == 7:
        raise ValueError("no good")
    return record

@bridge.filter("slow")
def slow(record: dict) -> dict:
    ends = time.process_time() + 0.0002
    while time.process_time() < ends:
        pass
    return record

@bridge.filter("slow")
def quick(record: dict) -> dict:
    return record

@bridge.filter("wait")
async def wait(record: dict) -> dict:
    await asyncio.sleep(0.01)
    return record

class View(msgspec.Struct):
    id: int

@bridge.filter("view")
def view(one: View) -> bool:
    return one.id % 2 == 0

@bridge.filter("many")
def many(event: bridge.Event):
    return [event, bridge.Event("ad.copy", event.time, {"id": 3})]

@bridge.batch("batch")
def batch(records: list[dict]) -> list:
    return [None if "id" not in one else one for one in records]

@bridge.filter("again.{sometimes,always}")
def again(event: bridge.Event):
    if event.tag == "again.always" or event.record["id"] == 5:
        raise bridge.Retry(1)
    return event

@bridge.filter("odd")
def unencodable(record: dict) -> dict:
    record["thing"] = object()
    return record
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in os.environ:
        if name.startswith("FLUENT_BRIDGE_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    (folder / "f.py").write_text(FILTERS)
    return folder


@pytest.fixture(scope="module")
def sample(folder):
    path = folder / "sample.jsonl"
    path.write_text("".join(f'{{"id": {n}, "pad": "{"x" * 50}"}}\n' for n in range(1000)))
    return str(path)


@pytest.fixture
def bench(capsys, folder, sample):
    """Return a function: arguments → exit code, stdout and stderr."""

    def run(*arguments, sample=sample):
        code = main(
            ["bench", str(folder), "--sample", str(sample), "--seconds", "0.05", *arguments]
        )
        return code, *capsys.readouterr()

    return run


def test_the_parts_add_up_and_the_outcome_is_shown(bench):
    code, out, _ = bench("--tag", "ad.x", "--json")
    assert code == 0
    found = json.loads(out)
    assert list(found["microseconds"]) == [
        "cut", "decode", "filter enrich", "filter some", "encode", "rest",
    ]  # fmt: skip
    assert all(each > 0 for each in found["microseconds"].values())
    assert sum(found["microseconds"].values()) == pytest.approx(found["microseconds_in_all"])
    assert found["events_per_second_a_worker"] == pytest.approx(1e6 / found["microseconds_in_all"])
    assert found["bare_loop_microseconds"] > 0
    assert found["events"] == found["chunks"] * 1000
    assert (found["out"], found["dropped"], found["dead_letters"]) == tuple(
        found["chunks"] * each for each in (800, 100, 100)
    )
    assert found["reasons"] == ["some: ValueError: no good"]


def test_as_text_for_people(bench):
    code, out, err = bench("--tag", "ad.x", "--target-rate", "200k")
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert "1,000 events of 73 bytes in chunks of 1,000, tag ad.x;" in out
    assert "80.0% out, 10.0% dropped, 10.0% dead letters" in out
    assert "  some: ValueError: no good\n" in out
    for part in ("cut", "decode", "filter enrich", "filter some", "encode", "rest", "all"):
        assert f"\n{part} " in out
    assert "events/s of a bare loop" in out
    assert "For 200,000 events/s ask for " in out
    assert "\n  workers.count: " in out


def test_the_time_is_the_filters_that_takes_it(bench):
    found = json.loads(bench("--tag", "slow", "--json", "--chunk", "100")[1])
    slow = found["microseconds"]["filter slow"]
    assert slow >= 200
    assert slow > 0.5 * found["microseconds_in_all"]
    assert found["microseconds"]["filter quick"] < slow / 2


def test_filters_that_wait(bench):
    _, out, _ = bench("--tag", "wait", "--json", "--chunk", "200", "--target-rate", "1M")
    found = json.loads(out)
    assert found["busy"] < 0.8
    assert found["cores_for_workers"] < found["settings"]["workers.count"]
    assert "The filters wait" in bench("--tag", "wait", "--chunk", "200")[1]


def test_documents(bench):
    plain = json.loads(bench("--tag", "ad.x", "--json")[1])
    found = json.loads(bench("--tag", "ad.x", "--json", "--payload", "json")[1])
    assert found["out"] == found["chunks"] * 800  # in the field message, where there was none
    assert found["sample"]["bytes"] > plain["sample"]["bytes"]
    assert "payload json" in bench("--tag", "ad.x", "--payload", "json")[1]


def test_chunks_that_a_filter_wants_again(bench):
    found = json.loads(
        bench("--tag", "again.sometimes", "--json", "--chunk", "10", "--seconds", "0.3")[1]
    )
    assert 0 < found["chunks_retried"] < found["chunks"]
    assert found["events"] == 10 * (found["chunks"] - found["chunks_retried"])
    code, out, _ = bench("--tag", "again.always", "--target-rate", "1k")
    assert code == 1
    assert "chunks were asked for again by bridge.Retry: they are in no figure" in out
    assert "events/s" not in out


def test_several_processes_at_once(bench, folder):
    for left in folder.glob("loaded-*"):
        left.unlink()
    code, out, _ = bench("--tag", "ad.x", "--workers", "2", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["workers"] == 2
    assert len(list(folder.glob("loaded-*"))) == 2
    assert found["events_per_second"] == 2 * found["events_per_second_a_worker"]
    assert found["events"] == found["chunks"] * 1000
    assert sum(found["microseconds"].values()) == pytest.approx(found["microseconds_in_all"])


def test_what_processes_measured_is_summed():
    one, other = (
        Profile(events=n, seconds=n, filters={"f": n}, reasons=Counter({f"r{n}": n}))
        for n in (1, 2)
    )
    one.add(other)
    assert one == Profile(events=3, seconds=3, filters={"f": 3}, reasons=Counter(r1=1, r2=2))


def test_the_collector_is_as_it_was(bench):
    bench("--tag", "ad.x")
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


ODD = (
    codec.pack_entries([(EventTime(1, n), {"id": n, "t": "ü"}) for n in range(700)])
    + b"\x92\x01\x82\xa2id\x02\xa1k\xa3\xff\xfe\x80"  # not UTF-8
    + b"\x92\x01\x81\xa1k" + b"\x91" * 3000 + b"\x01"
    + b"\x92\x01\x82\xa2id\x04\xa1t\xd7\xff" + bytes(8)  # a timestamp
)  # fmt: skip


@pytest.mark.parametrize("tag", ["ad.x", "view", "many", "batch", "odd", "other"])
@pytest.mark.parametrize("payload", ["raw", "json"])
def test_a_pipeline_with_a_clock_does_what_any_does(folder, tag, payload):
    """What is measured is what a worker does only if the results are the same, byte for byte."""
    registry = load(folder)
    plain = Pipeline(registry, payload=payload, gather=Gatherer())
    timed = TimedPipeline(registry, payload, "message")
    entries = ODD
    if payload == "json":
        entries = codec.pack_entries(
            [(EventTime(1, n), {"message": f'{{"id": {n}}}'}) for n in range(700)]
            + [(1, {"message": "no JSON"}), (2, {"message": b'{"a": 1}', "more": 1})]
        )
    expected, found = (each.run(tag, entries, None) for each in (plain, timed))
    assert [(one.tag, bytes(one.entries), one.count) for one in found.streams] == [
        (one.tag, bytes(one.entries), one.count) for one in expected.streams
    ]
    assert (found.received, found.dropped, found.errors) == (
        expected.received, expected.dropped, expected.errors,
    )  # fmt: skip
    if tag == "ad.x":
        assert timed.decoding > 0
        assert timed.encoding > 0


def test_a_short_sample_is_repeated_to_fill_a_chunk(tmp_path):
    path = tmp_path / "e.mp"
    path.write_bytes(codec.pack_entries([(1, {"id": n}) for n in range(30)]))
    count = lambda chunks: [one.count for one in chunks]  # noqa: E731
    assert count(prepare(read(path), "t", 100, 1000)) == [100]
    assert count(prepare(read(path), "t", 10, 25)) == [10, 10]  # not a short one beside them
    assert count(prepare(read(path), "t", 10, 5)) == [10]
    assert prepare(iter(()), "t", 10, 5) == []


def test_filters_are_closed(tmp_path):
    (tmp_path / "f.py").write_text(
        "import pathlib, bridge\n"
        "@bridge.filter('t')\n"
        "class F:\n"
        "    def __call__(self, record: dict) -> dict:\n"
        "        return record\n"
        "    def close(self):\n"
        "        pathlib.Path(__file__).with_name('closed').touch()\n"
    )
    (tmp_path / "e.jsonl").write_text("{}\n")
    chunks = prepare(read(tmp_path / "e.jsonl"), "t", 1, 1)
    assert measure(load(tmp_path / "f.py"), chunks, 0.01).events
    assert (tmp_path / "closed").exists()


def test_the_advice_keeps_a_part_free():
    profile = Profile(
        events=1_000,
        seconds=0.01,
        cpu_seconds=0.01,
        bare_events=1,
        bare_seconds=1,
        bare_cpu_seconds=1,
    )
    assert profile.rate == 100_000
    assert Advice.of(profile, 200_000) == (200_000, 3, 3)  # 200 / (100 x 0.7)
    assert Advice.of(profile, 70_000) == (70_000, 1, 1)
    profile.cpu_seconds = 0.002
    assert Advice.of(profile, 700_000) == (700_000, 10, 2)
    profile.bare_cpu_seconds = 0.5  # other work had half of the time
    assert Advice.of(profile, 700_000) == (700_000, 10, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tag", "nope"], "no filter applies to the tag nope: give one that your filters are for by --tag; there are enrich (ad.**), some (ad.**)"),
        ([], "say it with --tag"),
        (["--tag", "ad", "--target-rate", "many"], "--target-rate many is no number of events a second, as in 200000, 200k"),
        (["--tag", "ad", "--target-rate", "0"], "--target-rate 0 is no number"),
        (["--tag", "ad", "--seconds", "0"], "--seconds"),
    ],
)  # fmt: skip
def test_mistakes_are_plain_messages(bench, arguments, message, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    code, out, err = bench(*arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_an_empty_sample(bench, tmp_path):
    (tmp_path / "e.jsonl").touch()
    code, _, err = bench("--tag", "ad", sample=tmp_path / "e.jsonl")
    assert code == 2
    assert err.startswith(f"error: {tmp_path}/e.jsonl: holds no event")
