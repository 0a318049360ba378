"""What a worker's pipeline costs an event, beside a bare loop: ``python -m benchmarks.pipeline``.

The garbage collector is off in both, as it is in a worker during a chunk. Each number is the best
of several runs; the host's noise is in all of them, so compare those of one invocation only.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec.msgpack import Ext

from bridge.events import EventTime
from bridge.loading import load
from bridge.pipeline import Pipeline
from bridge.workers.process import Gatherer

EVENTS = 20_000
REPEATS = 15

FILTERS = """
import bridge
import msgspec

class Click(msgspec.Struct):
    price: float
    country: str

@bridge.filter("dict")
def enrich(record: dict) -> dict | None:
    record["site"] = record["url"].split("/", 3)[2]
    return record

@bridge.filter("event")
def enrich_event(event: bridge.Event) -> bridge.Event:
    event.record["site"] = event.record["url"].split("/", 3)[2]
    return event

@bridge.filter("asynchronous")
async def enrich_asynchronously(record: dict) -> dict:
    record["site"] = record["url"].split("/", 3)[2]
    return record

@bridge.filter("predicate")
def paid_only(record: dict) -> bool:
    return record["price"] > 0.1

@bridge.filter("all")
def all_clicks(click: Click) -> bool:
    return click.price >= 0

@bridge.filter("view")
def paid_clicks(click: Click) -> bool:
    return click.price > 0.1

@bridge.batch("batch")
def enrich_all(records: list[dict]) -> list:
    for record in records:
        record["site"] = record["url"].split("/", 3)[2]
    return records
"""


def records() -> list[dict]:
    return [
        {
            "id": number,
            "url": f"https://www.shop{number % 100}.example/items/{number}",
            "country": "DE",
            "price": number % 1000 / 1000,
            "user": f"u{number % 5000}",
            "agent": "Mozilla/5.0 (X11; Linux x86_64)",
            "ip": f"10.0.0.{number % 256}",
            "status": 200,
            "bytes": number * 7,
            "mobile": bool(number % 2),
        }
        for number in range(EVENTS)
    ]


def packed(made: list[dict]) -> bytes:
    encode = msgspec.msgpack.encode
    return b"".join(
        encode((Ext(0, EventTime(1_700_000_000 + i, i).to_bytes()), one))
        for i, one in enumerate(made)
    )


def bare_loop(entries: bytes) -> Callable[[], object]:
    """Decode, filter, encode, each event by itself: what a worker would do at its simplest."""
    parts = [
        msgspec.msgpack.encode(one)
        for one in msgspec.msgpack.decode(
            b"\xdd" + EVENTS.to_bytes(4) + entries, type=list[tuple[msgspec.Raw, msgspec.Raw]]
        )
    ]
    decode = msgspec.msgpack.Decoder(tuple[msgspec.Raw, dict]).decode
    encode = msgspec.msgpack.Encoder().encode

    def enrich(record: dict) -> dict | None:
        record["site"] = record["url"].split("/", 3)[2]
        return record

    def run() -> list[bytes]:
        out = []
        for part in parts:
            event_time, record = decode(part)
            record = enrich(record)
            if record is not None:
                out.append(encode((event_time, record)))
        return out

    return run


def main() -> None:
    made = records()
    entries = packed(made)
    documents = packed([{"message": msgspec.json.encode(one)} for one in made])
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "filters.py").write_text(FILTERS)
        registry = load(folder)
    gather = Gatherer()
    raw = Pipeline(registry, gather=gather)
    parsed = Pipeline(registry, payload="json", gather=gather)
    cases: dict[str, Callable[[], object]] = {"bare loop, one dict filter": bare_loop(entries)}
    for name, tag in {
        "one dict filter": "dict",
        "no filter": "none",
        "dict predicate, 1 in 10 dropped": "predicate",
        "typed predicate, 1 in 10 dropped": "view",
        "typed predicate, none dropped": "all",
        "Event filter": "event",
        "batch filter": "batch",
        "async filter": "asynchronous",
    }.items():
        cases[name] = lambda tag=tag: raw.run(tag, entries, EVENTS)
    cases["one dict filter, events not counted"] = lambda: raw.run("dict", entries, None)
    for name, tag in {"dict filter": "dict", "typed predicate": "view"}.items():
        cases[f"JSON payload, {name}"] = lambda tag=tag: parsed.run(tag, documents, EVENTS)
    best = dict.fromkeys(cases, float("inf"))
    gc.disable()
    for _ in range(REPEATS):  # in turn, so that the host's noise is everyone's
        for name, run in cases.items():
            began = time.process_time()
            result = run()
            best[name] = min(best[name], time.process_time() - began)
            del result
            gc.collect()
    bare = next(iter(best.values()))
    print(f"{EVENTS} events of {len(entries) // EVENTS} bytes, best of {REPEATS}\n")
    print(f"{'':36}{'us/event':>10}{'of bare':>10}")
    for name, seconds in best.items():
        print(f"{name:36}{seconds / EVENTS * 1e6:10.3f}{seconds / bare:10.2f}")


if __name__ == "__main__":
    main()
