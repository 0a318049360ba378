"""The demo's filters. A folder of files like this is all that a sidecar needs."""

from typing import Any

import msgspec

import bridge

COUNTRIES = {"49": "de", "33": "fr", "44": "gb"}
clicks = bridge.counter("demo_clicks", "Clicks that were paid for.", labels=("country",))


class Client(msgspec.Struct):
    """A typed view: only this field is decoded."""

    agent: str


@bridge.filter("ad")
def no_bots(client: Client) -> bool:
    """Drop what crawlers did; what passes, passes byte for byte."""
    return "bot" not in client.agent.lower()


@bridge.filter("ad")
def enrich(record: dict[str, Any]) -> dict[str, Any]:
    """Add the site and the country; what has no price is somebody's mistake to look at."""
    if record["price"] < 0:
        raise bridge.Reject(f"a price of {record['price']} is not possible")
    record["site"] = record["url"].split("/", 3)[2]
    record["country"] = COUNTRIES[record.pop("dial")]
    clicks.inc(country=record["country"])
    return record
