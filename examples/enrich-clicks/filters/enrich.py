"""Clicks get what a table knows of their advertiser."""

import csv
from pathlib import Path
from typing import Any

import bridge

HERE = Path(__file__).parent

clicks = bridge.counter("ad_clicks_total", "Clicks of known advertisers.", labels=("vertical",))


@bridge.filter("ad.click")
class Enrich:
    """Add the advertiser's name, vertical and price a click; an unknown one is an error.

    Args:
        table: a CSV with the columns id, name, vertical and cpc; a relative path begins at this
            folder. A setting: ``filters.parameters: {Enrich: {table: /etc/ads/advertisers.csv}}``.
    """

    def __init__(self, table: str = "advertisers.csv") -> None:
        # Once a worker, before it is ready: a wrong table is found out at the start.
        with (HERE / table).open(encoding="utf-8", newline="") as file:
            self._advertisers = {
                row["id"]: (row["name"], row["vertical"], float(row["cpc"]))
                for row in csv.DictReader(file, strict=True)
            }

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        advertiser = self._advertisers.get(str(record["advertiser_id"]))  # 17 and "17" are the same
        if advertiser is None:
            # To the error stream, not away: the table is late more often than the click is wrong.
            raise bridge.Reject(f"advertiser {record['advertiser_id']!r} is not in the table")
        record["advertiser"], record["vertical"], record["cpc"] = advertiser
        clicks.inc(vertical=record["vertical"])
        return record
