"""Events from files: msgpack as Fluentd keeps and sends it, JSON and CSV, as they stream by.

A file is never held in memory, but for a JSON document that is no JSON lines. Events stay packed as
they came, and are decoded only for whoever asks.
"""

from bridge.samples.reading import objects, read
from bridge.samples.sample import Sample, chunks, documents, unpacked
from bridge.samples.source import FORMATS, Format, Source

__all__ = [
    "FORMATS",
    "Format",
    "Sample",
    "Source",
    "chunks",
    "documents",
    "objects",
    "read",
    "unpacked",
]
