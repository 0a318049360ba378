"""The standard health service, answered by what is true now."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

from grpc import StatusCode
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

_LOOK = 1.0  # seconds between looks for a change that watchers are told of

_Context = Any  # grpc.aio's ServicerContext, of these two messages


class Health(health_pb2_grpc.HealthServicer):
    """``grpc.health.v1.Health``.

    The class of the same purpose in grpc_health keeps a status that others must set in time; this
    one asks.

    Args:
        services: names that are known; the empty one is the whole server.
        serving: whether they serve.
        draining: set when the sidecar ends; watchers are then told, and their calls end.
    """

    def __init__(
        self, services: Collection[str], serving: Callable[[], bool], draining: asyncio.Event
    ) -> None:
        self._services = frozenset(services)
        self._serving = serving
        self._draining = draining

    async def Check(  # noqa: N802 - the contract's name
        self, request: HealthCheckRequest, context: _Context
    ) -> HealthCheckResponse:
        """Return a service's status."""
        if request.service not in self._services:
            known = ", ".join(sorted(self._services - {""}))
            await context.abort(
                StatusCode.NOT_FOUND, f"no service {request.service!r}; there is {known}"
            )
        return self._response(request.service)

    async def Watch(  # noqa: N802 - the contract's name
        self,
        request: HealthCheckRequest,
        context: _Context,  # noqa: ARG002 - gRPC's signature
    ) -> AsyncIterator[HealthCheckResponse]:
        """Give a service's status now, and again whenever it changes."""
        last = None
        while True:
            response = self._response(request.service)
            if response.status != last:
                yield response
            if self._draining.is_set():
                return
            last = response.status
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._draining.wait()

    def _response(self, service: str) -> HealthCheckResponse:
        if service not in self._services:
            return HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
        serving = self._serving() and not self._draining.is_set()
        return HealthCheckResponse(
            status=HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
        )
