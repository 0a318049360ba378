"""A click goes on, and copies of it go to billing, to analytics and to review, by rule."""

from collections.abc import Iterator
from typing import Any

import bridge

#: What each reader may see. A field that a click does not have is left out.
BILLING = ("click_id", "advertiser_id", "price", "currency")
ANALYTICS = ("campaign", "country", "device", "price")

copies = bridge.counter("click_copies_total", "Copies of clicks.", labels=("reader",))


@bridge.filter("ad.click")
def fan_out(event: bridge.Event) -> Iterator[bridge.Event]:
    """Give the click itself, and under other tags a copy for each that is to have one."""
    click = event.record
    yield event
    # Compared with what may be missing: an exception here takes the click back as well, so that it
    # is in the error stream whole, and in no reader's stream in part.
    if click["price"] > 0 and not click.get("test"):
        yield copy(event, "billing.click", BILLING)
    if click.get("consent"):
        yield copy(event, "analytics.click", ANALYTICS)
    if click["price"] > 100 or click.get("device") == "unknown":
        yield copy(event, "review.click", tuple(click))


def copy(event: bridge.Event, tag: str, fields: tuple[str, ...]) -> bridge.Event:
    """Return a copy under another tag, with a dict of its own: filters behind may change it."""
    click: dict[str, Any] = event.record
    copies.inc(reader=tag.partition(".")[0])
    return bridge.Event(tag, event.time, {key: click[key] for key in fields if key in click})
