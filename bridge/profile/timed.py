"""A worker's pipeline with a clock, and the bare loop that it is compared with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from time import perf_counter
from typing import Any, Literal

import msgspec
from msgspec import Raw

from bridge.decoding import array_header, encode
from bridge.filters import Registry
from bridge.forward import Chunk
from bridge.pipeline import Outcome, Pipeline
from bridge.samples import unpacked
from bridge.workers.process import Gatherer

Payload = Literal["raw", "json"]

_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)


class TimedPipeline(Pipeline):
    """A pipeline that looks at the clock where records are made and where bytes are.

    That is a few times a slice of 256 events, so what it measures is the pipeline of a worker.
    """

    def __init__(self, registry: Registry, payload: Payload, payload_key: str) -> None:
        self.gather = Gatherer()
        super().__init__(registry, payload=payload, payload_key=payload_key, gather=self.gather)
        self.sliced = self.decoding = self.encoding = 0.0
        self._open, self._pack = self._payload.open, self._payload.pack
        self._payload.open = self._timed_open  # type: ignore[method-assign]
        self._payload.pack = self._timed_pack  # type: ignore[method-assign]

    def _timed_open(self, *arguments: Any, **named: Any) -> Any:
        began = perf_counter()
        try:
            return self._open(*arguments, **named)
        finally:
            self.decoding += perf_counter() - began

    def _timed_pack(self, chunk: Any, items: list[Any]) -> Any:
        """Encode what the pipeline would encode next, by the same means, so that it is timed."""
        began = perf_counter()
        failed: list[object] = []
        packed: Any = self._pack(chunk, items)
        if packed is None:
            sealed = self._payload.seal(chunk, items, lambda *_: failed.append(_))
            with contextlib.suppress(*_UNENCODABLE):
                packed = memoryview(encode(sealed))[len(array_header(len(sealed))) :]
        self.encoding += perf_counter() - began
        return None if failed else packed

    def _run(self, *arguments: Any) -> Outcome:
        began = perf_counter()
        try:
            return super()._run(*arguments)
        finally:
            self.sliced += perf_counter() - began


def bare_loop(chunk: Chunk, payload: Payload, key: str) -> tuple[Callable[[], object], int]:
    """Return what decodes each event and encodes it again, and how many events there are for it.

    Events that a plain decoder does not take are left out.
    """
    decode = msgspec.msgpack.Decoder(tuple[Raw, dict[Any, Any]]).decode
    write = msgspec.msgpack.Encoder().encode
    read_document = msgspec.json.Decoder(dict[str, Any]).decode
    write_document = msgspec.json.Encoder().encode

    def record(entry: bytes) -> bytes:
        return write(decode(entry))

    def document(entry: bytes) -> bytes:
        time, envelope = decode(entry)
        envelope[key] = write_document(read_document(envelope[key])).decode()
        return write((time, envelope))

    once = document if payload == "json" else record
    entries = []
    for sample in unpacked(chunk.entries):
        with contextlib.suppress(KeyError, *_UNENCODABLE, msgspec.MsgspecError):
            once(sample.entry)
            entries.append(sample.entry)

    def loop() -> bytes:
        return b"".join([once(entry) for entry in entries])

    return loop, len(entries)
