"""What options allow that several commands have."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """What a file of events is; as :data:`bridge.samples.Format`, which takes long to import."""

    msgpack = "msgpack"
    jsonl = "jsonl"
    json = "json"
    csv = "csv"


class Payload(StrEnum):
    """The setting ``filters.payload``."""

    raw = "raw"
    json = "json"
