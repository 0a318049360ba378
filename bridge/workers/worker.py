"""One worker as the transport process sees it: a child process, a socket, the jobs it has."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from bridge import memory
from bridge.errors import BridgeError
from bridge.workers import wire

# A chunk goes in one write, as far as the kernel allows (net.core.wmem_max): by default 208 KiB, of
# which the kernel's own bookkeeping takes a part.
_SOCKET_BUFFER = 4 << 20
# Seconds between two looks at a worker's memory, and at that of one with half of what it may hold.
# A look is 15 µs.
_LOOK_EVERY = 0.05
_LOOK_OFTEN = 0.01
_LAST_WORDS = 5.0  # seconds for the socket to be read to its end, once its process has ended

Entries = bytes | bytearray | memoryview


class WorkerDied(BridgeError):
    """The worker ended, or was ended, while it had the job.

    Args:
        reason: why, as in ``was killed by SIGSEGV``.
        index: the event it had come to, if the job was a careful one.
        total: how many events the entries hold, likewise.
        deadline: whether it was ended because it overran its deadline.
        blameless: whether it would have ended with other events as well.
    """

    def __init__(
        self,
        reason: str,
        *,
        index: int | None,
        total: int | None,
        deadline: bool,
        blameless: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.index = index
        self.total = total
        self.deadline = deadline
        self.blameless = blameless


@dataclass(slots=True, eq=False)
class Assignment:
    """A job that a worker has.

    Attributes:
        job: what to do.
        entries: its entries.
        reply: what the worker answers: the head and the body.
        first: whether it is a piece of a chunk that holds results already.
        generation: the only one whose filters may run it; None is any.
        enqueued: when the job came, on the monotonic clock.
        index: the event that a careful job has come to.
        total: how many events there are, once a careful job has said so.
    """

    job: wire.Job
    entries: Entries
    reply: asyncio.Future[tuple[wire.Reply, memoryview]]
    first: bool = False
    generation: int | None = None
    enqueued: float = field(default_factory=time.monotonic)
    index: int | None = None
    total: int | None = None


class OnDone(Protocol):
    """See :class:`Worker`."""

    def __call__(self, worker: Worker, reply: wire.Done, size: int, /, *, wanted: bool) -> None:
        """Take a reply."""


class _Link(asyncio.BufferedProtocol):
    """Reads a worker's frames; a body is received into the buffer that is later sent from."""

    def __init__(
        self,
        received: Callable[[bytes, memoryview], None],
        lost: Callable[[], None],
    ) -> None:
        self._received = received
        self._lost = lost
        self._prefix = bytearray(wire.PREFIX.size)
        self._frame = bytearray()
        self._head_length = 0
        self._target = memoryview(self._prefix)
        self._filled = 0

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return self._target[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._filled < len(self._target):
            return
        self._filled = 0
        if self._target.obj is self._prefix:
            self._head_length, body_length = wire.PREFIX.unpack(self._prefix)
            self._frame = bytearray(self._head_length + body_length)
            self._target = memoryview(self._frame)
            return
        view, self._target = self._target, memoryview(self._prefix)
        self._received(bytes(view[: self._head_length]), view[self._head_length :])

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._lost()


class Worker:
    """A worker process.

    Args:
        name: its name in metrics and logs, as in ``0``.
        start: what it loads.
        deadline: seconds that a job may take, a careful one an event.
        memory_limit: bytes that it may hold, beyond which it is ended; None is no limit.
        on_idle: called when the worker can take another job.
        on_done: called with the reply to each job that was done, the size of its results, and
            whether somebody waits for them.
        on_orphans: called with the jobs that it had not begun when it ended.
        on_end: called once when it has ended, with the reason, or None if it was asked to.

    Attributes:
        loaded: whether it has loaded the filters.
        overran: whether it was ended because it overran its deadline.
        cpu_seconds: its CPU time, as of the last job that was done.
        traceback: of what it failed by, if it could still say so.
    """

    def __init__(
        self,
        name: str,
        start: wire.Start,
        *,
        deadline: float,
        memory_limit: int | None,
        on_idle: Callable[[], None],
        on_done: OnDone,
        on_orphans: Callable[[list[Assignment]], None],
        on_end: Callable[[Worker, str | None], None],
    ) -> None:
        self.name = name
        self.ready: asyncio.Future[wire.Ready | wire.Unloadable] = (
            asyncio.get_running_loop().create_future()
        )
        self._start = start
        self._deadline = deadline
        self._memory_limit = memory_limit
        self._on_idle = on_idle
        self._on_done = on_done
        self._on_orphans = on_orphans
        self._on_end = on_end
        self._jobs: deque[Assignment] = deque()
        self._process: asyncio.subprocess.Process | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reason: str | None = None
        self._resident = 0
        self._oversized = False
        self.overran = False
        self.cpu_seconds = 0.0
        self.traceback: str | None = None
        self._closing = False
        self.loaded = False
        self._watch: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()

    @property
    def load(self) -> int:
        """How many jobs it has."""
        return len(self._jobs)

    @property
    def usable(self) -> bool:
        """Whether it can be given jobs."""
        return (
            self.loaded
            and self._transport is not None
            and not self._closing
            and self._reason is None
        )

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    async def launch(self) -> None:
        """Start the process; :attr:`ready` is done when it has loaded the filters or cannot."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
        with theirs:
            # spawn, not fork: neither threads nor gRPC survive a fork, and nothing of other filters
            # is left over in a fresh process.
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # a msgpack.py in the working folder is none of ours
                "-m",
                "bridge.workers.process",
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        ours.setblocking(False)
        self._transport, _ = await loop.create_unix_connection(
            lambda: _Link(self._on_frame, self._on_lost), sock=ours
        )
        self._transport.write(wire.frame(self._start))
        self._watch = loop.create_task(self._wait())
        if self._memory_limit is not None:
            self._watch_memory()

    def submit(self, assignment: Assignment) -> None:
        """Send a job; its future gets the reply, or :class:`WorkerDied`."""
        assert self._transport is not None
        self._jobs.append(assignment)
        if len(self._jobs) == 1:
            self._restart_timer()
        self._transport.writelines(
            [wire.frame(assignment.job, len(assignment.entries)), assignment.entries]
        )

    def close(self) -> None:
        """Let the process end after the jobs that it has."""
        self._closing = True
        if self._transport is not None and not self._jobs:
            self._transport.close()

    def kill(self, reason: str) -> None:
        """End the process now."""
        if self._reason is None:
            self._reason = reason
        self._signal(signal.SIGKILL)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Make the process stand still meanwhile."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    async def wait_ended(self) -> None:
        """Wait until the process has ended."""
        if self._watch is not None:
            await asyncio.shield(self._watch)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _on_frame(self, head: bytes, body: memoryview) -> None:
        reply = wire.decode_reply(head)
        match reply:
            case wire.Ready() | wire.Unloadable():
                self.loaded = isinstance(reply, wire.Ready)
                self.ready.set_result(reply)
            case wire.Broken(reason, traceback):
                self._reason = f"ended by {reason}"
                self.traceback = traceback
            case _ if not self._jobs:
                pass  # it was ended for what it holds, and others have its jobs
            case wire.Progress(index, total):
                current = self._jobs[0]
                current.total = total
                # If it holds too much, that comes of the event before this one.
                if not self._too_large():
                    current.index = index
                    self._restart_timer()
            case _:
                assignment = self._jobs.popleft()
                self._restart_timer()
                wanted = not assignment.reply.done()
                if isinstance(reply, wire.Done):
                    self._resident = reply.resident_bytes
                    self._on_done(self, reply, len(body), wanted=wanted)
                if wanted:
                    assignment.reply.set_result((reply, body))
                if self._closing and not self._jobs and self._transport is not None:
                    self._transport.close()
                elif self._too_large():
                    jobs, self._jobs = list(self._jobs), deque()
                    self._on_orphans(jobs)
                self._on_idle()

    def _on_lost(self) -> None:
        self._transport = None
        self._lost.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _restart_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._jobs:
            self._timer = asyncio.get_running_loop().call_later(self._deadline, self._overrun)

    def _overrun(self) -> None:
        self.overran = True
        self.kill(f"did not return within the deadline of {self._deadline:g} s")

    def _watch_memory(self) -> None:
        # The container's limit is no help: with cgroup v2 the kernel ends all processes there
        # (memory.oom.group), and the events that were to blame come again for ever. Nor is
        # RLIMIT_DATA, which counts what libraries reserve and never touch, as a thread its stack.
        assert self._memory_limit is not None
        if self._transport is None or self._too_large():
            return
        often = memory.resident(self.pid) > self._memory_limit // 2
        loop = asyncio.get_running_loop()
        loop.call_later(_LOOK_OFTEN if often else _LOOK_EVERY, self._watch_memory)

    def _too_large(self) -> bool:
        """Return whether the process was ended because it held more than it may; end it if so."""
        limit = self._memory_limit
        if self._oversized or limit is None or self._reason is not None:
            return self._oversized
        if memory.resident(self.pid) <= limit or (held := memory.held(self.pid)) <= limit:
            return False
        self._oversized = True
        most = f"more than workers.memory_limit, {limit >> 20} MiB"
        self.kill(f"held {-(-held >> 20)} MiB of memory, {most}")
        return True

    async def _wait(self) -> None:
        assert self._process is not None
        code = await self._process.wait()
        with contextlib.suppress(TimeoutError):  # replies that it wrote before it ended still count
            await asyncio.wait_for(self._lost.wait(), timeout=_LAST_WORDS)
        asked = self._closing and not self._jobs and code == 0
        reason = self._reason or _reason_of(code)
        self._reason = reason
        jobs, self._jobs = list(self._jobs), deque()
        if not self.ready.done():
            self.ready.set_result(wire.Unloadable([f"a worker ended while it loaded: {reason}"]))
        if jobs and not jobs[0].reply.done():
            jobs[0].reply.set_exception(
                WorkerDied(
                    reason,
                    index=jobs[0].index,
                    total=jobs[0].total,
                    deadline=self.overran,
                    # Where it held much before, any event would have been one too many.
                    blameless=self._oversized and self._resident > (self._memory_limit or 0) // 2,
                )
            )
        self._on_orphans(jobs[1:])
        self._on_end(self, None if asked else reason)


def _reason_of(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", out of memory perhaps" if -code == signal.SIGKILL else ""
    return f"was killed by {name}{hint}"
