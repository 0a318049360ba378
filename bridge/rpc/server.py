"""The gRPC server: listens, serves the service, its health and its reflection, and drains."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from bridge.budget import Budget
from bridge.logs import get_logger
from bridge.metrics import Metrics
from bridge.rpc import service
from bridge.rpc.batches import Batches
from bridge.rpc.health import Health
from bridge.rpc.listening import listen, unix_address
from bridge.settings import RpcSettings
from bridge.workers.pool import Pool
from bridge.workers.rescue import Rescue

_LARGEST_MESSAGE = (1 << 31) - 1  # gRPC's lengths are C's int
_READ_AHEAD = 4 << 20
_LARGEST_FRAME = (1 << 24) - 1  # RFC 9113, section 4.2
_OTHER_CALLS = 64  # health and reflection, beside the batches
_LAST_WORDS = 1.0  # seconds for replies to leave, once no batch is worked on
_IDENTITY = 1 << 0  # the bit of "not compressed" (grpc/impl/compression_types.h)

_HEALTH: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_log = get_logger(__name__)


class Server:
    """Listens once it is open, and tells callers to come again until it is told to serve.

    Args:
        settings: the group ``rpc``.
        pool: the workers.
        rescue: runs batches on them.
        budget: bytes in flight.
        metrics: where to count.

    Attributes:
        port: the TCP port, 0 without one.
        trouble: why it does not serve, None if it does; for readiness.
    """

    def __init__(
        self,
        settings: RpcSettings,
        pool: Pool,
        rescue: Rescue,
        *,
        budget: Budget,
        metrics: Metrics,
    ) -> None:
        self.port = 0
        self.trouble: str | None = "not serving yet"
        self._settings = settings
        self._pool = pool
        self._draining = asyncio.Event()
        self._max_message_bytes = min(settings.max_message_bytes, _LARGEST_MESSAGE)
        self._service = service.Service(
            pool,
            Batches(pool, rescue, budget=budget, draining=self._draining, metrics=metrics),
            max_request_bytes=self._max_message_bytes,
            max_calls=settings.max_calls,
            budget=budget,
            draining=self._draining,
            metrics=metrics,
        )
        self._server: grpc.aio.Server | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def addresses(self) -> list[str]:
        """Where it listens, as gRPC writes it."""
        settings = self._settings
        unix = [] if settings.socket is None else [unix_address(settings.socket)]
        return [*unix, f"{settings.host}:{self.port}"] if self.port else unix

    async def open(self) -> None:
        """Listen.

        Raises:
            SettingsError: it cannot listen where the settings say.
        """
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", self._max_message_bytes),
                ("grpc.max_send_message_length", -1),
                # A whole request without asking the caller for more, in one frame: by default the
                # window begins with 64 KiB, and a frame holds 16. A tenth less time a call of 1,000
                # events.
                ("grpc.http2.lookahead_bytes", _READ_AHEAD),
                ("grpc.http2.max_frame_size", _LARGEST_FRAME),
                # Two processes on one port would share its callers.
                ("grpc.so_reuseport", 0),
                # gRPC knows no bound on what a message is decompressed to.
                ("grpc.compression_enabled_algorithms_bitset", _IDENTITY),
            ],
            maximum_concurrent_rpcs=self._settings.max_calls + _OTHER_CALLS,
        )
        self._server.add_generic_rpc_handlers([self._service.handler()])
        health = Health(
            ["", service.NAME],
            lambda: self._service.serving and bool(self._pool.ready),
            self._draining,
        )
        health_pb2_grpc.add_HealthServicer_to_server(health, self._server)
        reflection.enable_server_reflection(
            [service.NAME, _HEALTH, reflection.SERVICE_NAME], self._server
        )
        self.port = listen(self._server, self._settings)
        await self._server.start()
        self._watch = asyncio.get_running_loop().create_task(self._wait_ended(self._server))

    def serve(self) -> None:
        """Take batches from now on: the workers have loaded the filters."""
        self._service.serving = True
        self.trouble = None

    async def drain(self, grace: float) -> bool:
        """Take no more calls, answer those that there are, return whether that was done in time.

        Args:
            grace: seconds.
        """
        if self._server is None:
            return True
        self._draining.set()
        stopping = asyncio.get_running_loop().create_task(self._server.stop(max(grace, 0)))
        drained = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._service.wait_idle()
            drained = True
            await asyncio.wait([stopping], timeout=_LAST_WORDS)
            if not stopping.done():  # somebody has a stream of the reflection open
                await self._server.stop(None)
        await stopping
        if self._watch is not None:
            await self._watch
        return drained

    async def _wait_ended(self, server: grpc.aio.Server) -> None:
        try:
            await server.wait_for_termination()
        except Exception as error:  # noqa: BLE001 - whatever ended it
            self.trouble = f"the gRPC server has ended: {error!r}; the log says why"
            _log.exception("the gRPC server has ended")
