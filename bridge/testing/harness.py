"""The filters of a folder, fed by a test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import msgspec

from bridge.errors import ProtocolError, Retry
from bridge.events import EventTime
from bridge.forward import Chunk, Receiver, codec
from bridge.samples import Format, chunks, documents, read
from bridge.testing.case import TIME
from bridge.testing.in_process import InProcess
from bridge.testing.result import Engine, Result

_LARGEST = 256 << 20  # bytes of a message, and of what it decompresses to
_CHUNK = 1_000  # events of a file that make a chunk, unless told otherwise


class Start(Protocol):
    """The fixture ``fluent_bridge``: starts a harness that ends with the test."""

    def __call__(
        self,
        folder: str | Path,
        *,
        payload: Literal["raw", "json"] = "raw",
        payload_key: str = "message",
        parameters: Mapping[str, Mapping[str, Any]] | None = None,
        sidecar: bool = False,
        workers: int = 1,
    ) -> Harness:
        """See :class:`Harness`."""


class Harness:
    """The filters of a folder; feed it events, and look at what became of them.

        with Harness("filters") as harness:
            result = harness.feed("ad.click", [{"price": 1}, {"price": -1}])
        assert result.records == [{"price": 1}]
        assert result.dead_letters[0].reason == "a price of -1 is not possible"

    With payload json, what :meth:`feed` takes and what results hold are documents. Several may be
    open at once; a filter that imports a file beside it only when it is called must not have its
    name in common with a file of another folder.

    Args:
        folder: the folder of filter files, or one such file.
        payload: as ``filters.payload`` in the settings.
        payload_key: as ``filters.payload_key``.
        parameters: as ``filters.parameters``.
        sidecar: whether to run them in the worker processes of a real sidecar and not in this
            process. It takes a second to start; what comes out is the same.
        workers: how many worker processes that sidecar has.

    Attributes:
        filters: name and tag pattern of each filter, in order.

    Raises:
        ExceptionGroup: of :class:`~bridge.errors.LoadError`: the filters cannot be loaded.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        payload: Literal["raw", "json"] = "raw",
        payload_key: str = "message",
        parameters: Mapping[str, Mapping[str, Any]] | None = None,
        sidecar: bool = False,
        workers: int = 1,
    ) -> None:
        self._key = payload_key if payload == "json" else None
        folder, parameters = Path(folder), parameters or {}
        self._engine: Engine
        if sidecar:
            # gRPC takes a while to import.
            from bridge.testing.sidecar import Sidecar  # noqa: PLC0415

            self._engine = Sidecar(
                folder,
                payload=payload,
                payload_key=payload_key,
                parameters=parameters,
                workers=workers,
            )
        else:
            self._engine = InProcess(
                folder, payload=payload, payload_key=payload_key, parameters=parameters
            )
        self.filters = self._engine.filters

    def feed(self, tag: str, records: Any, *, time: EventTime | int = TIME) -> Result:
        """Run events as one chunk.

        Args:
            tag: their tag.
            records: a record, or several; one may also be a pair of a time and a record. With
                payload json a text is taken as what stands in the document's field.
            time: the time of those that have none.

        Raises:
            TypeError, ValueError, OverflowError: a record holds what MessagePack does not.
        """
        several = [records] if isinstance(records, dict | str | tuple) else records
        events = [one if isinstance(one, tuple) else (time, one) for one in several]
        return self._run([self.chunk(tag, events)])

    def feed_forward(self, message: bytes) -> Result:
        """Run what a Forward connection receives.

        Args:
            message: one or more messages of the Forward protocol, in any mode, compressed or not.

        Raises:
            ProtocolError: it is something else, or is cut off.
        """
        receiver = Receiver(max_message_bytes=_LARGEST, clock=lambda: TIME)
        receiver.receive(message)
        received: list[Chunk] = []
        while (event := receiver.next_event()) is not None:
            if isinstance(event, Chunk):
                received.append(event)
        if receiver.eof() or not received:
            raise ProtocolError(
                f"the message is cut off: {receiver.pending_bytes} bytes are the beginning of one"
            )
        return self._run(received)

    def feed_file(
        self,
        path: str | Path,
        *,
        tag: str | None = None,
        format: Format | None = None,  # noqa: A002
        chunk: int = _CHUNK,
    ) -> Result:
        """Run the events of a file.

        With payload json a record that does not have the document's field is taken as the document.

        Args:
            path: the file: see :func:`bridge.samples.read`.
            tag: the tag for all of them, whatever the file says.
            format: what the file is; by default told by its name or first bytes.
            chunk: most events of a chunk.

        Raises:
            SampleError: the file cannot be read.
            ValueError: the file has no tags, and none was given.
        """
        samples = read(path, format, clock=lambda: TIME)
        if self._key is not None:
            samples = documents(samples, self._key)
        return self._run(_tagged(chunks(samples, chunk, tag=tag), path))

    def chunk(self, tag: str, events: Iterable[tuple[codec.Time, Any]]) -> Chunk:
        """Return events as a chunk.

        Args:
            tag: their tag.
            events: times, and records or documents.

        Raises:
            TypeError, ValueError, OverflowError: a record holds what MessagePack does not.
        """
        packed = [(time, self._sealed(record)) for time, record in events]
        return Chunk(tag, codec.pack_entries(packed), len(packed), None, None)

    def run(self, chunk: Chunk) -> Result:
        """Run a chunk, and leave what was counted for :meth:`feed`.

        Raises:
            ProtocolError: it holds something else than events.
        """
        result = Result()
        self._add(result, chunk)
        return result

    def close(self) -> None:
        """Close the filters, and end the sidecar if there is one.

        Raises:
            ExceptionGroup: of what the filters' ``close`` raised.
        """
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, several: Iterable[Chunk]) -> Result:
        self._engine.counts()  # of what ran meanwhile
        result = Result()
        for chunk in several:
            self._add(result, chunk)
        result.metrics, result.filters = self._engine.counts()
        return result

    def _add(self, result: Result, chunk: Chunk) -> None:
        entries, count = bytes(chunk.entries), chunk.count
        if chunk.compressed is not None:
            entries = bytes(codec.decompress(entries, chunk.compressed, _LARGEST))
        outcome = self._engine.run(chunk.tag, entries, count)
        if isinstance(outcome, Retry):
            result.retry = max(result.retry or 0.0, outcome.delay)
        else:
            result.add(outcome, self._opened)

    def _sealed(self, record: Any) -> dict[Any, Any]:
        if self._key is None:
            if isinstance(record, dict):
                return record
            raise TypeError(f"a record is a dict, not a {type(record).__qualname__}")
        text = record if isinstance(record, str) else msgspec.json.encode(record).decode()
        return {self._key: text}

    def _opened(self, record: dict[Any, Any]) -> dict[Any, Any]:
        try:
            document = msgspec.json.decode(record[self._key])
        except (KeyError, TypeError, ValueError):
            return record
        return document if isinstance(document, dict) else record


def _tagged(several: Iterable[Chunk], path: str | Path) -> Iterable[Chunk]:
    for chunk in several:
        if not chunk.tag:
            raise ValueError(f"the events of {path} have no tag: give one, as in tag='ad.click'")
        yield chunk
