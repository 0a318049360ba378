"""Events get the country and the network of the address that they came from."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from _ranges import Ranges

import bridge

HERE = Path(__file__).parent


@bridge.filter("ad.** web.**")
class GeoIp:
    """Add ``country`` and ``asn``; both are None for an address that no range holds.

    Args:
        table: the CSV of ranges; a relative path begins at this folder.
        field: the record's field that holds the address.
        cache: how many addresses each worker remembers.
    """

    def __init__(self, table: str = "ranges.csv", field: str = "ip", cache: int = 100_000) -> None:
        self._field = field
        # Few addresses send most events. Records share what is cached, so it must be what nobody
        # can change: a tuple of text and number, not a dict.
        self._find = lru_cache(cache)(Ranges(HERE / table).find)

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        address = record[self._field]
        try:
            record["country"], record["asn"] = self._find(address)
        except (OSError, ValueError, TypeError):  # no address, one with a NUL in it, not a text
            raise bridge.Reject(f"{self._field} is {address!r}, not an IP address") from None
        return record
