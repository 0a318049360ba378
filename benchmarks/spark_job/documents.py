"""The function on an event's bytes. A module of its own: Spark's workers import it, by name.

JSON is read and written by msgspec, as in the sidecar: else the libraries would be compared.
"""

from __future__ import annotations

import msgspec
from enrich import enrich

LIBRARY = f"msgspec {msgspec.__version__}"
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def document(value: bytes) -> bytes:
    """Return the document with the function applied to it."""
    return _encode(enrich(_decode(value)))
