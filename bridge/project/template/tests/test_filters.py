"""Tests of many events at once; single cases stand in filters/*.cases.yaml.

The fixture comes with fluent-bridge. With ``sidecar=True`` the filters run in worker processes, as
they do in the pod.
"""

from pathlib import Path

from bridge.testing import Start

PROJECT = Path(__file__).parents[1]


def test_every_click_is_accounted_for(fluent_bridge: Start) -> None:
    filters = fluent_bridge(PROJECT / "filters")
    result = filters.feed_file(PROJECT / "samples" / "clicks.jsonl", tag="ad.click")
    assert [record["site"] for record in result.records] == ["shop.example", "news.example"]
    assert result.dropped == 1
    assert [letter.reason for letter in result.dead_letters] == ["a price of -1 is not possible"]
