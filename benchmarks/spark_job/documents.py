"""The function on an event's bytes. A module of its own: Spark's workers import it, by name.

JSON is read and written by msgspec where Spark's Python has it, because it is the fastest.
"""

from __future__ import annotations

from enrich import enrich

try:
    import msgspec

    LIBRARY = f"msgspec {msgspec.__version__}"
    _decode = msgspec.json.Decoder().decode
    _encode = msgspec.json.Encoder().encode
except ImportError:
    import json

    LIBRARY = "json"
    _decode = json.loads

    def _encode(record: object) -> bytes:
        return json.dumps(record, separators=(",", ":")).encode()


def document(value: bytes) -> bytes:
    """Return the document with the function applied to it."""
    return _encode(enrich(_decode(value)))
