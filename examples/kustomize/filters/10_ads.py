"""What happens to events about ads.

Files of this folder load in the order of their names, the filters of a file in the order in which
they stand; each is applied to the events whose tag matches its pattern. Names that begin with _ are
left out: others may import them.
"""

from typing import Any
from urllib.parse import urlsplit

import msgspec

import bridge


class Click(msgspec.Struct):
    """A typed view: only these fields are decoded and checked."""

    price: float


@bridge.filter("ad.click")
def paid_only(click: Click) -> bool:
    """Drop clicks that nobody paid for: a predicate, what passes leaves byte for byte."""
    if click.price < 0:
        raise bridge.Reject(f"a price of {click.price:g} is not possible")
    return click.price > 0


@bridge.filter("ad.**")
def add_site(record: dict[str, Any]) -> dict[str, Any]:
    """Add the site that the URL belongs to; what has no URL goes to the error stream."""
    record["site"] = urlsplit(record["url"]).hostname
    return record
