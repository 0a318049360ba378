"""The sidecar: the only place where its parts are put together."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvloop

from bridge import logs
from bridge.admin import Admin
from bridge.budget import Budget
from bridge.cpu import cpu_quota
from bridge.errors import SettingsError
from bridge.logs import get_logger
from bridge.memory import keep_freed_buffers
from bridge.metrics import Metrics
from bridge.reload import Reload, Reloaded, log
from bridge.server.road import ForwardRoad, listen
from bridge.settings import Settings
from bridge.tap import Taps
from bridge.tapping import Tapping
from bridge.workers import wire
from bridge.workers.generation import FiltersNotLoaded
from bridge.workers.pool import Pool
from bridge.workers.rescue import Rescue

if TYPE_CHECKING:
    from bridge import rpc

_log = get_logger(__name__)


class Sidecar:
    """The workers, and the roads that lead to them: Forward, gRPC or both.

    Args:
        settings: all settings.
        report: told how each reload of the filters went; by default the log is.

    Raises:
        SettingsError: a file that the settings name cannot be used.
    """

    def __init__(self, settings: Settings, report: Callable[[Reloaded], None] = log) -> None:
        self._settings = settings
        self.metrics = Metrics()
        self._taps = Taps()
        budget = Budget(settings.delivery.bytes_in_flight, self.metrics.in_flight_bytes)
        self.metrics.in_flight_limit_bytes.set(budget.limit)
        self.pool = Pool(
            _start_of(settings),
            count=settings.workers.count or cpu_quota(),
            deadline=settings.workers.deadline,
            memory_limit=settings.workers.memory_limit,
            start_timeout=settings.workers.start_timeout,
            budget=budget,
            metrics=self.metrics,
            taps=self._taps,
        )
        rescue = Rescue(self.pool, budget, self.metrics)
        self.reload = Reload(
            settings.filters.path,
            settings.filters.reload_files,
            interval=settings.filters.reload_interval if settings.filters.reload else None,
            pool=self.pool,
            metrics=self.metrics,
            report=report,
        )
        self._watch: asyncio.Task[None] | None = None
        self._forward = (
            ForwardRoad(settings, rescue, budget, self.metrics) if settings.listen.enabled else None
        )
        self._rpc: rpc.Server | None = None
        if settings.rpc.enabled:
            # gRPC is 20 MiB of memory that Forward alone does not need.
            from bridge import rpc  # noqa: PLC0415

            self._rpc = rpc.Server(
                settings.rpc, self.pool, rescue, budget=budget, metrics=self.metrics
            )
        self.admin = Admin(
            settings.admin.host,
            settings.admin.port,
            self.metrics,
            self.readiness,
            Tapping(self._taps, settings.admin.tap).answer,
            # Not among what readiness depends on: a pod that serves must stay in a rollout's count
            # when an update of its filters is no good. A new pod with such never gets ready.
            warnings=lambda: {"filters": self.reload.trouble},
        )
        self._draining = False

    def readiness(self) -> dict[str, str | None]:
        """Return what readiness depends on, and what is wrong with it if anything is."""
        return {
            "filters": None if self.pool.filters else "the workers have not loaded the filters yet",
            "workers": None if self.pool.ready else "no worker is ready: one is being started",
            "shutdown": "the sidecar is ending" if self._draining else None,
            **(self._forward.readiness if self._forward else {}),
            **({"rpc": self._rpc.trouble} if self._rpc else {}),
        }

    async def open(self) -> None:
        """Start everything.

        Raises:
            FiltersNotLoaded: the filters cannot be loaded.
            SettingsError: an address cannot be listened on.
        """
        await listen("admin", self.admin.start())
        if self._forward:
            self._forward.load()
        if self._rpc:
            await self._rpc.open()
        await self.reload.open()
        if self._rpc:
            self._rpc.serve()
        if self._forward:
            await self._forward.open()
        self._watch = asyncio.get_running_loop().create_task(self.reload.run())
        self._watch.add_done_callback(_note_end)
        _log.info(
            "ready",
            **(self._forward.addresses if self._forward else {}),
            **({"rpc": self._rpc.addresses} if self._rpc else {}),
            admin=f"{self._settings.admin.host}:{self.admin.port}",
            workers=self.pool.ready,
            filters=[f"{one.name} ({one.pattern})" for one in self.pool.filters],
        )

    async def close(self) -> None:
        """Answer what is in flight, or hand it back when the grace period is over, and end."""
        self._draining = True
        if self._watch:
            self._watch.cancel()
        grace = self._settings.shutdown.grace
        ends = time.monotonic() + grace
        _log.info("draining", grace_seconds=grace)
        roads = [road.drain(grace) for road in (self._forward, self._rpc) if road]
        drained = all(await asyncio.gather(*roads))
        if drained:
            _log.info("drained, everything received was answered")
        else:
            _log.warning("not drained in time: upstream keeps what was not acknowledged")
        if self._forward:
            await self._forward.close()
        # Workers with nothing to do end at once, but for what the filters' close() does.
        await self.pool.close(max(ends - time.monotonic(), 1) if drained else 0)
        self._taps.close()
        await self.admin.close()

    async def abandon(self) -> None:
        """End a sidecar whose opening failed or was given up."""
        if self._rpc:
            await self._rpc.drain(0)
        await self.pool.close(0)
        await self.admin.close()


def run(settings: Settings, report: Callable[[Reloaded], None] = log) -> int:
    """Run the sidecar until SIGTERM or SIGINT, and return the process's exit code.

    SIGHUP, and SIGUSR2 as Fluentd has it, load the filters anew. What keeps it from starting is in
    the log, and the code is 2.

    Args:
        settings: all settings.
        report: told how each reload of the filters went; by default the log is.
    """
    logs.configure(settings.log.level, settings.log.format)
    keep_freed_buffers()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(settings, report))


async def _run(settings: Settings, report: Callable[[Reloaded], None]) -> int:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    try:
        sidecar = Sidecar(settings, report)
    except SettingsError as error:
        _log.error("cannot start", reason=str(error))
        return 2
    terminal = os.isatty(0)

    def hang_up() -> None:
        # It is also what a terminal says that is closed.
        if terminal and not os.isatty(0):
            ended.set()
        else:
            sidecar.reload.ask()

    for number in (signal.SIGHUP, signal.SIGUSR2):
        loop.add_signal_handler(number, hang_up)
    waiting = loop.create_task(ended.wait())
    opening = loop.create_task(sidecar.open())
    await asyncio.wait([waiting, opening], return_when=asyncio.FIRST_COMPLETED)
    if not opening.done():  # told to end while the filters load
        opening.cancel()
        await asyncio.wait([opening])
    else:
        try:
            opening.result()
        except FiltersNotLoaded as error:
            _log.error("the filters cannot be loaded", mistakes=error.mistakes)
        except SettingsError as error:
            _log.error("cannot start", reason=str(error))
        else:
            await waiting
            await sidecar.close()
            return 0
    await sidecar.abandon()
    return 0 if ended.is_set() else 2


def _note_end(watch: asyncio.Task[None]) -> None:
    if not watch.cancelled() and (error := watch.exception()):
        _log.error("filters are not watched any more", exc_info=error)


def _start_of(settings: Settings) -> wire.Start:
    return wire.Start(
        filters=str(settings.filters.path),
        parameters=settings.filters.parameters,
        payload=settings.filters.payload,
        payload_key=settings.filters.payload_key,
        max_decompressed_bytes=int(settings.workers.max_decompressed_bytes),
        log_level=settings.log.level,
        log_format=settings.log.format,
    )
