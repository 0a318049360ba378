"""The worker process: reads jobs, runs them through the pipeline, writes the results.

Blocking and single-threaded by design: it has one job at a time, and the transport process sends
the next one before this one is done, so that the worker never waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, cast

import uvloop

from bridge import instruments, loading, logs
from bridge.errors import LoadError, ProtocolError, Retry
from bridge.forward import codec
from bridge.memory import keep_freed_buffers, resident
from bridge.pipeline import Outcome, Pipeline, Tap
from bridge.workers import wire

JOBS_BETWEEN_COLLECTIONS = 16
_KEEP_BUFFER = 8 << 20  # a buffer that one large chunk made larger than this is given back
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Channel:
    """The worker's end of the socket pair."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray(1 << 20)

    def receive(self) -> tuple[bytes, memoryview] | None:
        """Return the head and the body of the next frame, None when the transport process is gone.

        The body is valid until the next call.
        """
        prefix = bytearray(wire.PREFIX.size)
        if not self._fill(memoryview(prefix)):
            return None
        head_length, body_length = wire.PREFIX.unpack(prefix)
        length = head_length + body_length
        if length > len(self._buffer) or len(self._buffer) > _KEEP_BUFFER > length:
            self._buffer = bytearray(max(length, 1 << 20))
        view = memoryview(self._buffer)[:length]
        if not self._fill(view):
            return None
        return bytes(view[:head_length]), view[head_length:]

    def send(self, head: wire.Reply, bodies: Sequence[bytes | bytearray | memoryview] = ()) -> None:
        """Write a frame."""
        self._sock.sendall(wire.frame(head, sum(map(len, bodies))))
        for body in bodies:
            self._sock.sendall(body)

    def _fill(self, view: memoryview) -> bool:
        while view:
            received = self._sock.recv_into(view, 0, socket.MSG_WAITALL)
            if not received:
                return False
            view = view[received:]
        return True


class Gatherer:
    """Runs an ``async def`` filter over many events, with bounded concurrency, in one loop."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)

    def __call__(
        self,
        function: Callable[[Any], Awaitable[Any]],
        arguments: Sequence[Any],
        concurrency: int,
    ) -> list[Any]:
        """Return a result, or the exception raised, an argument."""
        return self._runner.run(self._gather(function, arguments, concurrency))

    async def _gather(
        self,
        function: Callable[[Any], Awaitable[Any]],
        arguments: Sequence[Any],
        concurrency: int,
    ) -> list[Any]:
        results: list[Any] = [None] * len(arguments)
        pending = iter(enumerate(arguments))

        async def lane() -> None:
            for index, argument in pending:
                try:
                    results[index] = await function(argument)
                except Exception as error:  # noqa: BLE001 - the pipeline decides what it means
                    results[index] = error

        lanes: list[Coroutine[Any, Any, None]] = [
            lane() for _ in range(min(concurrency, len(arguments)))
        ]
        await asyncio.gather(*lanes)
        return results

    def close(self) -> None:
        """Close the loop."""
        self._runner.close()


class Worker:
    """Runs the jobs that come over a channel until the transport process closes it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._max_decompressed_bytes = 0

    def run(self) -> int:
        """Return the process's exit code."""
        frame = self._channel.receive()
        if frame is None:
            return 0
        start = wire.decode_start(frame[0])
        self._max_decompressed_bytes = start.max_decompressed_bytes
        logs.configure(cast("Any", start.log_level), cast("Any", start.log_format))
        gather = Gatherer()
        try:
            sources = {os.fsdecode(path): text for path, text in start.sources.items()}
            registry = loading.load(start.filters, start.parameters, sources)
        except LoadError as error:
            self._channel.send(wire.Unloadable([str(error)]))
            return 1
        except ExceptionGroup as errors:
            self._channel.send(wire.Unloadable([str(error) for error in errors.exceptions]))
            return 1
        pipeline = Pipeline(
            registry,
            payload=cast("Any", start.payload),
            payload_key=start.payload_key,
            gather=gather,
        )
        # Decoded events are trees, freed by their reference counts. What cycles the filters make is
        # collected between chunks, and what was loaded is not walked again each time.
        gc.disable()
        gc.collect()
        gc.freeze()
        self._channel.send(
            wire.Ready([wire.Filter(one.name, one.pattern, one.batch) for one in registry.filters])
        )
        jobs = 0
        try:
            while frame := self._channel.receive():
                self._run_job(pipeline, wire.decode_job(frame[0]), frame[1])
                jobs += 1
                if jobs % JOBS_BETWEEN_COLLECTIONS == 0:
                    gc.collect()
        finally:
            pipeline.close()
            gather.close()
        return 0

    def _run_job(self, pipeline: Pipeline, job: wire.Job, body: memoryview) -> None:
        began = time.perf_counter()
        taps = [Tap(wanted, errors=errors) for _, wanted, errors in job.taps]
        try:
            outcome = self._outcome(pipeline, job, body, taps)
        except Retry as retry:
            self._channel.send(wire.Again(retry.delay, str(retry)))
            return
        except ProtocolError as error:
            self._channel.send(wire.Refused(str(error)))
            return
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self._channel.send(
            wire.Done(
                streams=[
                    (s.tag.encode("utf-8", "surrogateescape"), s.count, len(s.entries), s.error)
                    for s in outcome.streams
                ],
                received=outcome.received,
                dropped=outcome.dropped,
                errors=outcome.errors,
                seconds=time.perf_counter() - began,
                filters=outcome.filters,
                instruments=instruments.drain(),
                cpu_seconds=usage.ru_utime + usage.ru_stime,
                resident_bytes=resident(os.getpid()),
                tapped=[
                    (who, line)
                    for (who, *_), tap in zip(job.taps, taps, strict=True)
                    for line in tap.lines
                ],
            ),
            [s.entries for s in outcome.streams],
        )

    def _outcome(
        self, pipeline: Pipeline, job: wire.Job, body: memoryview, taps: list[Tap]
    ) -> Outcome:
        entries: bytes | bytearray | memoryview = body
        tag = job.tag.decode("utf-8", "surrogateescape")
        if job.compressed:
            entries = codec.decompress(body, job.compressed, self._max_decompressed_bytes)
        if job.verdict:
            return pipeline.reject(
                tag, entries, job.count, job.start, *job.verdict, job.attempts, taps
            )
        progress = None
        if job.careful:
            total = codec.count_entries(entries)
            self._channel.send(wire.Progress(-1, total))

            def progress(index: int) -> None:
                self._channel.send(wire.Progress(index, total))

        return pipeline.run(
            tag,
            entries,
            job.count,
            start=job.start,
            stop=job.stop,
            attempts=job.attempts,
            progress=progress,
            taps=taps,
        )


def main() -> int:
    """Run a worker on the socket whose descriptor is the first argument."""
    parent = os.getppid()
    # A worker that hangs in a filter does not see its socket close: it must not outlive a transport
    # process that was killed.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return 0
    # The transport process decides when workers end: a Ctrl-C in a terminal reaches the whole
    # group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    keep_freed_buffers()
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    try:
        return Worker(channel).run()
    except (BrokenPipeError, ConnectionResetError):
        return 0
    except BaseException as error:  # noqa: BLE001 - the last words of a process
        with contextlib.suppress(OSError):
            channel.send(wire.Broken(repr(error), traceback.format_exc()))
        return 1


if __name__ == "__main__":
    sys.exit(main())
