"""The calls of ``bridge.rpc.v1.Sidecar``; what they mean stands in ``sidecar.proto``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc import StatusCode

from bridge.budget import Budget
from bridge.logs import get_logger
from bridge.metrics import Metrics
from bridge.rpc.batches import Batches
from bridge.rpc.refusal import Refusal
from bridge.rpc.reply import process_response
from bridge.rpc.v1 import sidecar_pb2 as pb
from bridge.version import __version__
from bridge.workers.counts import count_delivered
from bridge.workers.pool import Pool

NAME: str = pb.DESCRIPTOR.services_by_name["Sidecar"].full_name

# Nothing yet beyond the contract's first edition.
CAPABILITIES: frozenset[str] = frozenset()

_STARTING = 1.0  # seconds after which to ask again whether the filters are loaded
# The caller's clock began before ours: its deadline is over while some of it is left here.
_SLACK = 0.1

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
Call = Callable[[bytes, Context], Awaitable[bytes]]

_log = get_logger(__name__)


class Service:
    """Answers the calls.

    Requests and replies are handled as bytes, so that one that cannot be decoded is refused like
    any other, and not by a stack trace.

    Args:
        pool: the workers.
        batches: runs batches on them.
        max_request_bytes: the largest request that gets here.
        max_calls: how many batches are worked on at once.
        budget: bytes in flight.
        draining: set when the sidecar ends.
        metrics: where to count.

    Attributes:
        serving: whether the workers have loaded the filters; until then callers are told to come
            again.
    """

    def __init__(
        self,
        pool: Pool,
        batches: Batches,
        *,
        max_request_bytes: int,
        max_calls: int,
        budget: Budget,
        draining: asyncio.Event,
        metrics: Metrics,
    ) -> None:
        self._pool = pool
        self._batches = batches
        self._max_request_bytes = max_request_bytes
        self._max_calls = max_calls
        self._budget = budget
        self._draining = draining
        self._metrics = metrics
        self.serving = False
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what to give to a server."""
        calls = {"Describe": self._describe, "Process": self._process}
        return grpc.method_handlers_generic_handler(
            NAME, {name: self._handler(name, call) for name, call in calls.items()}
        )

    async def wait_idle(self) -> None:
        """Wait until no batch is worked on and all replies are on their way."""
        await self._idle.wait()

    async def _describe(self, message: bytes, context: Context) -> bytes:
        request = pb.DescribeRequest.FromString(message)
        plugin = request.plugin_version or "unknown"
        if missing := sorted(set(request.requires) - CAPABILITIES):
            raise Refusal(
                StatusCode.FAILED_PRECONDITION,
                f"the plugin (version {plugin}) requires {', '.join(missing)}, which this sidecar"
                f" (version {__version__}) does not have: update the sidecar, fluent-bridge, to"
                " the plugin's version or later",
            )
        self._check_open()
        _log.info("plugin connected", version=plugin, peer=context.peer())
        return pb.DescribeResponse(
            version=__version__,
            capabilities=sorted(CAPABILITIES),
            max_request_bytes=self._max_request_bytes,
            filters=[pb.Filter(name=one.name, pattern=one.pattern) for one in self._pool.filters],
        ).SerializeToString()

    async def _process(self, message: bytes, context: Context) -> bytes:
        self._check_open()
        if self._calls >= self._max_calls:
            raise Refusal(
                StatusCode.RESOURCE_EXHAUSTED,
                f"the sidecar works on {self._calls} batches already: come again, or raise"
                " rpc.max_calls",
            )
        if self._budget.full:
            # The message is here already: to wait for room would hold it all the while.
            raise Refusal(
                StatusCode.RESOURCE_EXHAUSTED,
                f"the sidecar holds {self._budget.held >> 20} MiB of events and results already:"
                " come again, or raise delivery.bytes_in_flight",
            )
        self._calls += 1
        self._idle.clear()
        self._metrics.rpc_calls_in_progress.set(self._calls)
        size = len(message)
        self._budget.take(size)
        held: list[int] = []

        def ended(_: Context) -> None:
            # Until here the reply, which is as large as the results, may wait in gRPC for a caller
            # that does not read. A context and its callbacks are a cycle that the collector finds
            # late, so nothing large may hang on them.
            self._budget.release(size)
            for results in held:
                self._budget.release_results(results)
            self._calls -= 1
            self._metrics.rpc_calls_in_progress.set(self._calls)
            if not self._calls:
                self._idle.set()

        # The stubs make a class of the callback's type where a protocol is meant.
        context.add_done_callback(ended)  # type: ignore[arg-type]
        request = pb.ProcessRequest.FromString(message)
        tag, entries, count = request.tag, request.entries, request.count or None
        del request  # it holds the entries once more, and gRPC the message, until the call ends
        self._metrics.received_chunks.inc()
        self._metrics.received_bytes.inc(len(entries))
        if not entries:
            return b""
        answers = await self._batches.run(tag, entries, count, context.time_remaining)
        for reply, body in answers:
            held.append(len(body))
            count_delivered(self._metrics, reply)
        return process_response(answers)

    def _check_open(self) -> None:
        if self._draining.is_set():
            raise Refusal(StatusCode.UNAVAILABLE, "the sidecar ends")
        if not self.serving:
            raise Refusal(
                StatusCode.UNAVAILABLE, "the sidecar starts: its filters are not loaded", _STARTING
            )

    def _handler(self, name: str, call: Call) -> grpc.RpcMethodHandler[Any, Any]:
        seconds = self._metrics.rpc_call_seconds.labels(name)
        codes = {code: self._metrics.rpc_calls.labels(name, code.name) for code in (StatusCode.OK,)}

        async def handle(message: bytes, context: Context) -> bytes:
            began = time.monotonic()
            code = StatusCode.OK
            try:
                return await call(message, context)
            except Refusal as refusal:
                code = refusal.code
                self._note(name, refusal, context)
                await context.abort(code, refusal.details, refusal.trailers)
            except DecodeError as error:
                code = StatusCode.INVALID_ARGUMENT
                await context.abort(code, f"the request is no {name}Request: {error}")
            except asyncio.CancelledError:
                left = context.time_remaining()
                late = left is not None and left < _SLACK
                code = StatusCode.DEADLINE_EXCEEDED if late else StatusCode.CANCELLED
                raise
            except Exception:  # noqa: BLE001 - told to the caller, and logged
                code = StatusCode.INTERNAL
                _log.exception("call failed by a fault of the sidecar", call=name)
                await context.abort(code, "a mistake in the sidecar: its log has the traceback")
            finally:
                if code not in codes:
                    codes[code] = self._metrics.rpc_calls.labels(name, code.name)
                codes[code].inc()
                seconds.observe(time.monotonic() - began)

        return grpc.unary_unary_rpc_method_handler(handle)

    def _note(self, name: str, refusal: Refusal, context: Context) -> None:
        # What comes again is told once by the caller; what does not is somebody's mistake.
        lasting = {StatusCode.INVALID_ARGUMENT, StatusCode.FAILED_PRECONDITION}
        write = _log.warning if refusal.code in lasting else _log.debug
        write(
            "call refused",
            call=name,
            code=refusal.code.name,
            reason=str(refusal),
            peer=context.peer(),
        )
