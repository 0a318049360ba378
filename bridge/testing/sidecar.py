"""Filters in the worker processes of a real sidecar, behind its gRPC service."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import grpc

from bridge.errors import LoadError, NotAnEvent, Retry
from bridge.local import sidecar
from bridge.local.processes import ProgramError
from bridge.pipeline import Outcome, Stream
from bridge.rpc.v1 import sidecar_pb2 as pb
from bridge.rpc.v1 import sidecar_pb2_grpc
from bridge.testing.result import Counts, FilterCounts, Gains

_OWN = ("fluent_bridge_", "process_")
_PATIENCE = 120.0  # seconds for a chunk
_POLL = 0.1  # seconds between looks at the log, while a chunk is under way
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_WHERE = re.compile(r"(.+?)(?::(\d+))?: (.*)", re.DOTALL)  # as a LoadError says it


class Sidecar:
    """The filters of a folder, loaded by the workers of a sidecar.

    Args:
        folder: the folder, or a file.
        payload: as ``filters.payload``.
        payload_key: as ``filters.payload_key``.
        parameters: as ``filters.parameters``.
        workers: how many there are.

    Attributes:
        filters: name and pattern of each filter.

    Raises:
        ExceptionGroup: of :class:`~bridge.errors.LoadError`: the filters cannot be loaded.
        ProgramError: the sidecar does not start.
    """

    def __init__(
        self,
        folder: Path,
        *,
        payload: Literal["raw", "json"],
        payload_key: str,
        parameters: Mapping[str, Mapping[str, Any]],
        workers: int,
    ) -> None:
        with ExitStack() as stack:
            own = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fluent-bridge-")))
            settings = {
                "filters.payload": payload,
                "filters.payload_key": payload_key,
                "filters.parameters": json.dumps(parameters),
                "listen.enabled": "false",
                "rpc.socket": own / "socket",
                "workers.count": workers,
                "log.level": "info",  # see _retries
            }
            self._sidecar = sidecar.Sidecar(folder.absolute(), own, settings)
            stack.callback(self._sidecar.stop)
            self._start()
            channel = grpc.insecure_channel(f"unix:{own / 'socket'}", _UNLIMITED)
            stack.callback(channel.close)
            self._stub = sidecar_pb2_grpc.SidecarStub(channel)  # type: ignore[no-untyped-call]
            described = self._stub.Describe(pb.DescribeRequest(), timeout=_PATIENCE)
            self.filters: Sequence[tuple[str, str]] = [
                (one.name, one.pattern) for one in described.filters
            ]
            self._log = own / "sidecar.log"
            self._log_size = self._log.stat().st_size
            self._asked = 0
            self._metrics: dict[str, float] = {}
            self._stack = stack.pop_all()

    def run(self, tag: str, entries: bytes, count: int | None) -> Outcome | Retry:
        """See :class:`~bridge.testing.result.Engine`."""
        name = tag.encode("utf-8", "surrogateescape")
        call = self._stub.Process.future(
            pb.ProcessRequest(tag=name, entries=entries, count=count or 0), timeout=_PATIENCE
        )
        while True:
            try:
                reply = call.result(timeout=_POLL)
            except grpc.FutureTimeoutError:
                if (retry := self._retry()) is not None:
                    call.cancel()  # else it is run again and again
                    return retry
                continue
            except grpc.RpcError as error:
                raise _failure(error) from None
            if (retry := self._retry()) is not None:
                return retry
            streams = [
                Stream(
                    one.tag.decode("utf-8", "surrogateescape"), one.entries, one.count, one.error
                )
                for one in reply.streams
            ]
            # A batch that was cut over several workers has streams of each piece.
            tags = list(dict.fromkeys(stream.tag for stream in streams))
            streams.sort(key=lambda stream: tags.index(stream.tag))
            return Outcome(streams, reply.received, reply.dropped, reply.errors)

    def counts(self) -> Counts:
        """See :class:`~bridge.testing.result.Engine`."""
        before, self._metrics = self._metrics, self._sidecar.metrics()
        gained = {
            key: value - before.get(key, 0.0)
            for key, value in self._metrics.items()
            if value != before.get(key, 0.0)
        }

        def of(kind: str, name: str) -> int:
            return int(gained.get(f"fluent_bridge_filter_{kind}_total{{filter={name}}}", 0))

        filters = {
            name: FilterCounts(events, of("dropped_events", name), of("error_events", name))
            for name, _ in self.filters
            if (events := of("events", name))
        }
        own = Gains({key: value for key, value in gained.items() if not key.startswith(_OWN)})
        return Counts(own, filters)

    def close(self) -> None:
        """End the sidecar; its workers close the filters."""
        self._stack.close()

    def _start(self) -> None:
        try:
            self._sidecar.start()
        except ProgramError:
            for line in self._sidecar.log():
                if mistakes := line.get("mistakes"):
                    raise ExceptionGroup(
                        "the filters cannot be loaded", [_load_error(one) for one in mistakes]
                    ) from None
            raise

    def _retry(self) -> Retry | None:
        """Return what a filter raised since the last look.

        The sidecar waits and runs the chunk again, for as long as its caller has time: only its log
        tells at once that it was asked to.
        """
        size = self._log.stat().st_size
        if size == self._log_size:
            return None
        self._log_size = size
        asked = [one for one in self._sidecar.log() if one["event"] == "batch is to come again"]
        new, self._asked = asked[self._asked :], len(asked)
        return Retry(max(one["delay"] for one in new)) if new else None


def _failure(error: grpc.RpcError) -> Exception:
    assert isinstance(error, grpc.Call)
    if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
        return NotAnEvent(error.details())
    return ProgramError(f"the sidecar did not run the chunk: {error.details()}")


def _load_error(text: str) -> LoadError:
    found = _WHERE.fullmatch(text)
    assert found is not None
    file, line, message = found.groups()
    return LoadError(message, file=file, line=int(line or 0))
