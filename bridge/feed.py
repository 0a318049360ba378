"""Chunks sent to a sidecar, or through a folder of filters, and what became of each."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from bridge.errors import DeliveryError, Retry, SampleError
from bridge.forward import Chunk, Client
from bridge.pipeline import Outcome, Pipeline, Stream

if TYPE_CHECKING:
    import grpc


class Range(NamedTuple):
    """The place of a chunk in what was sent, all counted from 1.

    Attributes:
        number: the chunk's number.
        first: its first event's number.
        last: its last event's number.
    """

    number: int
    first: int
    last: int

    def __str__(self) -> str:
        return f"chunk {self.number} (events {self.first} to {self.last})"


@dataclass(slots=True)
class Tally:
    """What has been sent so far, and what became of it.

    Attributes:
        events: events sent.
        chunks: chunks sent.
        bytes: bytes of their entries.
        pending: chunks sent and not acknowledged, in their order.
        out: events that came back from the filters; of targets that give results, like the rest.
        dropped: events that a filter dropped.
        errors: events in the error streams.
    """

    events: int = 0
    chunks: int = 0
    bytes: int = 0
    pending: list[Range] = field(default_factory=list)
    out: int = 0
    dropped: int = 0
    errors: int = 0

    @property
    def acknowledged(self) -> int:
        """Chunks acknowledged."""
        return self.chunks - len(self.pending)


class Target(Protocol):
    """Where chunks go.

    Attributes:
        name: its address, for messages.
        verb: what is done to events, in the past tense.
        results: whether what the filters made of a chunk comes back here.
    """

    name: str
    verb: str
    results: bool

    def open(self) -> None:
        """Connect.

        Raises:
            DeliveryError: nobody is there.
            ProtocolError: it does not want what is sent from here.
        """

    def send(self, chunk: Chunk, place: Range, tally: Tally) -> Outcome | None:
        """Send a chunk, note in the tally what is not acknowledged, and return its results.

        Raises:
            DeliveryError, ProtocolError: it was not taken.
        """

    def finish(self, tally: Tally) -> None:
        """Wait until all chunks are acknowledged.

        Raises:
            DeliveryError, ProtocolError: some were not.
        """

    def close(self) -> None:
        """Disconnect."""


class ForwardTarget:
    """A Forward server: a sidecar, or a Fluentd.

    Args:
        client: asks for acknowledgements.
    """

    verb = "sent"
    results = False

    def __init__(self, client: Client) -> None:
        self.name = client.address
        self._client = client
        self._ranges: dict[str, Range] = {}

    def open(self) -> None:
        """See :class:`Target`."""
        self._client.connect()

    def send(self, chunk: Chunk, place: Range, tally: Tally) -> None:
        """See :class:`Target`; several chunks are on their way at a time."""
        try:
            chunk_id = self._client.send_packed(chunk.tag, chunk.entries, chunk.count)
        except BaseException:
            self._note(tally)
            tally.pending.append(place)
            raise
        assert chunk_id is not None
        self._ranges[chunk_id] = place
        self._note(tally)

    def finish(self, tally: Tally) -> None:
        """See :class:`Target`."""
        try:
            self._client.flush()
        finally:
            self._note(tally)

    def close(self) -> None:
        """See :class:`Target`."""
        self._client.close()

    def _note(self, tally: Tally) -> None:
        left = self._client.unacknowledged
        self._ranges = {one: self._ranges[one] for one in left if one in self._ranges}
        tally.pending = list(self._ranges.values())


class RpcTarget:
    """A sidecar's gRPC socket, called as Fluentd's bridge plugins call it.

    Args:
        socket: the Unix socket's path.
        timeout: seconds that a call may take.
    """

    verb = "sent"
    results = True

    def __init__(self, socket: str, timeout: float) -> None:
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its errors are ours to show
        import grpc  # noqa: PLC0415 - 20 MiB that the other targets do not need

        from bridge.rpc.v1 import sidecar_pb2, sidecar_pb2_grpc  # noqa: PLC0415

        self.name = socket
        self._timeout = timeout
        self._pb = sidecar_pb2
        self._error = grpc.RpcError
        self._channel: grpc.Channel = grpc.insecure_channel(
            f"unix:{socket}",
            [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
        )
        self._stub = sidecar_pb2_grpc.SidecarStub(self._channel)  # type: ignore[no-untyped-call]

    def open(self) -> None:
        """See :class:`Target`."""
        if not Path(self.name).is_socket():
            raise DeliveryError(
                f"there is no socket {self.name}: does a sidecar run with --rpc.socket {self.name}?"
            )
        try:
            self._stub.Describe(self._pb.DescribeRequest(), timeout=self._timeout)
        except self._error as error:
            raise DeliveryError(
                f"no sidecar answers at {self.name}: {_said(error)}; see its log, or start it"
            ) from error

    def send(self, chunk: Chunk, place: Range, tally: Tally) -> Outcome:
        """See :class:`Target`; a call at a time, which the sidecar cuts over its workers."""
        tally.pending = [place]
        request = self._pb.ProcessRequest(
            tag=chunk.tag.encode("utf-8", "surrogateescape"),
            entries=bytes(chunk.entries),
            count=chunk.count or 0,
        )
        try:
            reply = self._stub.Process(request, timeout=self._timeout)
        except self._error as error:
            raise DeliveryError(f"{self.name} did not take a chunk: {_said(error)}") from error
        tally.pending = []
        streams = [
            Stream(
                one.tag.decode("utf-8", "surrogateescape"), one.entries, one.count, error=one.error
            )
            for one in reply.streams
        ]
        return Outcome(streams, reply.received, reply.dropped, reply.errors)

    def finish(self, tally: Tally) -> None:
        """See :class:`Target`."""

    def close(self) -> None:
        """See :class:`Target`."""
        self._channel.close()


class FiltersTarget:
    """Filters in this process.

    Args:
        pipeline: the filters.
        name: their folder.
        timeout: seconds that a filter may go on asking for a chunk to come again.
    """

    verb = "run"
    results = True

    def __init__(self, pipeline: Pipeline, name: str, timeout: float) -> None:
        self.name = name
        self._pipeline = pipeline
        self._timeout = timeout

    def open(self) -> None:
        """See :class:`Target`."""

    def send(self, chunk: Chunk, place: Range, tally: Tally) -> Outcome:
        """See :class:`Target`."""
        tally.pending = [place]
        gives_up = time.monotonic() + self._timeout
        attempts = 1
        while True:
            try:
                outcome = self._pipeline.run(
                    chunk.tag, chunk.entries, chunk.count, attempts=attempts
                )
            except Retry as retry:
                if time.monotonic() + retry.delay > gives_up:
                    raise DeliveryError(
                        f"a filter of {self.name} raised bridge.Retry {attempts} times: what it"
                        f" waits for did not come within {self._timeout:g} s"
                    ) from retry
                time.sleep(retry.delay)
                attempts += 1
            else:
                tally.pending = []
                return outcome

    def finish(self, tally: Tally) -> None:
        """See :class:`Target`."""

    def close(self) -> None:
        """Close the filters."""
        self._pipeline.close()


def send(
    chunks: Iterable[Chunk],
    target: Target,
    tally: Tally,
    *,
    rate: float | None = None,
    each: Callable[[Outcome | None], object] = lambda _: None,
) -> None:
    """Send chunks one after the other, and wait until all of them are acknowledged.

    Args:
        chunks: read no faster than they are sent.
        target: where to; it is open.
        tally: counted up, and right whatever is raised.
        rate: events a second; by default as fast as they are taken. What is late is sent at once.
        each: called after each chunk with its results, None if the target gives none.

    Raises:
        DeliveryError, ProtocolError: chunks were not acknowledged: they are pending in the tally.
        SampleError: from the chunks; those before the mistake have been sent by then.
    """
    began = time.monotonic()
    try:
        for chunk in chunks:
            if rate is not None:
                time.sleep(max(0.0, began + tally.events / rate - time.monotonic()))
            each(_send_one(chunk, target, tally))
    except SampleError:
        target.finish(tally)  # what came before the mistake has been sent
        raise
    target.finish(tally)


def _send_one(chunk: Chunk, target: Target, tally: Tally) -> Outcome | None:
    count = chunk.count or 0
    place = Range(tally.chunks + 1, tally.events + 1, tally.events + count)
    tally.chunks += 1
    tally.events += count
    tally.bytes += len(chunk.entries)
    outcome = target.send(chunk, place, tally)
    if outcome is not None:
        tally.out += sum(one.count for one in outcome.streams if not one.error)
        tally.dropped += outcome.dropped
        tally.errors += outcome.errors
    return outcome


def _said(error: grpc.RpcError) -> str:
    return f"{error.code().name}: {error.details()}"
