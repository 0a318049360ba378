"""Entries, records and times as bytes, and what can be made of the odd ones among them.

Nearly every event is decoded by msgspec in one call a chunk. This package is for the rest: text
that is not UTF-8, timestamps finer than Python's, keys that Python cannot hash, nesting deeper than
a C decoder's stack. Such an event must reach the filters as well as it can be decoded, and must
leave byte for byte as it came where no filter changed it.
"""

from bridge.decoding.boundaries import (
    array_header,
    boundaries,
    count_entries,
    entry_of,
    is_map,
    text_header,
)
from bridge.decoding.lossless import as_json
from bridge.decoding.records import (
    Opaque,
    decode_odd,
    decode_plain,
    encode,
    encode_odd,
    may_hold_timestamp,
)
from bridge.decoding.times import event_time_of, holds_times, raw_of_time
from bridge.decoding.values import Buffer, Head, Kind, read_head, scan, skip

__all__ = [
    "Buffer",
    "Head",
    "Kind",
    "Opaque",
    "array_header",
    "as_json",
    "boundaries",
    "count_entries",
    "decode_odd",
    "decode_plain",
    "encode",
    "encode_odd",
    "entry_of",
    "event_time_of",
    "holds_times",
    "is_map",
    "may_hold_timestamp",
    "raw_of_time",
    "read_head",
    "scan",
    "skip",
    "text_header",
]
