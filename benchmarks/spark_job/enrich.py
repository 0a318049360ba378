"""The function that every pipeline of ``benchmarks.kafka`` runs, Spark too: plain Python."""

from __future__ import annotations


def enrich(record: dict) -> dict:
    """Add the host of the event's URL."""
    record["site"] = record["url"].split("/", 3)[2]
    return record
