"""The sidecar: the only place where its parts are put together."""

from __future__ import annotations

import asyncio
import signal
import ssl
import time
from collections.abc import Awaitable

import uvloop

from bridge import logs
from bridge.admin import Admin
from bridge.budget import Budget
from bridge.cpu import cpu_quota
from bridge.delivery.chain import Chain
from bridge.delivery.downstream import Downstream
from bridge.delivery.window import Window
from bridge.errors import SettingsError
from bridge.forward import ServerAuth
from bridge.logs import get_logger
from bridge.memory import keep_freed_buffers
from bridge.metrics import Metrics
from bridge.server import Limits, Server
from bridge.settings import ListenSettings, Settings
from bridge.workers import wire
from bridge.workers.pool import FiltersNotLoaded, Pool
from bridge.workers.rescue import Rescue

_log = get_logger(__name__)


class Sidecar:
    """Road A: Forward in, workers, Forward out.

    Args:
        settings: all settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.metrics = Metrics()
        budget = Budget(settings.delivery.bytes_in_flight, self.metrics.in_flight_bytes)
        self.metrics.in_flight_limit_bytes.set(budget.limit)
        self.pool = Pool(
            _start_of(settings),
            count=settings.workers.count or cpu_quota(),
            deadline=settings.workers.deadline,
            start_timeout=settings.workers.start_timeout,
            budget=budget,
            metrics=self.metrics,
        )
        self.downstream = Downstream(settings.downstream, self.metrics)
        self._window = Window(settings.delivery.recent_chunks)
        self.chain = Chain(
            Rescue(self.pool.run, budget, self.metrics),
            self.downstream,
            window=self._window,
            budget=budget,
            patience=settings.delivery.patience,
            metrics=self.metrics,
        )
        listen = settings.listen
        self.server = Server(
            self.chain.accept,
            limits=Limits(
                max_message_bytes=listen.max_message_bytes,
                receive_timeout=listen.receive_timeout,
            ),
            budget=budget,
            metrics=self.metrics,
            auth=_auth_of(listen),
            tls=_tls_of(listen),
        )
        self.admin = Admin(settings.admin.host, settings.admin.port, self.metrics, self.readiness)
        self._listening = False
        self._draining = False

    def readiness(self) -> dict[str, str | None]:
        """Return what readiness depends on, and what is wrong with it if anything is."""
        return {
            "filters": None if self.pool.filters else "the workers have not loaded the filters yet",
            "workers": None if self.pool.ready else "no worker is ready: one is being started",
            "listener": None if self._listening else "not listening yet",
            "shutdown": "the sidecar is ending" if self._draining else None,
            "downstream": self.downstream.loss,
        }

    async def open(self) -> None:
        """Start everything.

        Raises:
            FiltersNotLoaded: the filters cannot be loaded.
            SettingsError: an address cannot be listened on.
        """
        await _listen("admin", self.admin.start())
        if (file := self._settings.delivery.window_file) is not None:
            try:
                self._window.load(file)
                self._window.save(file)
            except OSError as error:
                raise SettingsError(
                    f"delivery.window_file: {file} cannot be read and written: {error.strerror};"
                    " name a file in a folder that this user may write to"
                ) from error
        await self.pool.open()
        self.downstream.open()
        listen = self._settings.listen
        await _listen("listen", self.server.open(listen.host, listen.port))
        self._listening = True
        _log.info(
            "ready",
            listen=f"{listen.host}:{self.server.port}",
            downstream=self.downstream.address,
            admin=f"{self._settings.admin.host}:{self.admin.port}",
            workers=self.pool.ready,
            filters=[f"{name} ({pattern})" for name, pattern in self.pool.filters],
        )

    async def close(self) -> None:
        """Answer what is in flight, or hand it back when the grace period is over, and end."""
        self._draining = True
        grace = self._settings.shutdown.grace
        ends = time.monotonic() + grace
        _log.info("draining", grace_seconds=grace)
        self.chain.drain()
        drained = await self.server.drain(grace)
        drained &= await self.chain.finish(ends - time.monotonic())
        if drained:
            _log.info("drained, everything received was answered")
        else:
            _log.warning("not drained in time: upstream keeps what was not acknowledged")
        await self.chain.close()
        if (file := self._settings.delivery.window_file) is not None:
            try:
                self._window.save(file)
            except OSError as error:
                _log.error("window not saved", file=str(file), reason=error.strerror)
        await self.downstream.close()
        # Workers with nothing to do end at once, but for what the filters' close() does.
        await self.pool.close(max(ends - time.monotonic(), 1) if drained else 0)
        await self.admin.close()


def run(settings: Settings) -> int:
    """Run the sidecar until SIGTERM or SIGINT, and return the process's exit code.

    What keeps it from starting is in the log, and the code is 2.
    """
    logs.configure(settings.log.level, settings.log.format)
    keep_freed_buffers()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(settings))


async def _run(settings: Settings) -> int:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    try:
        sidecar = Sidecar(settings)
    except SettingsError as error:
        _log.error("cannot start", reason=str(error))
        return 2
    waiting = loop.create_task(ended.wait())
    opening = loop.create_task(sidecar.open())
    await asyncio.wait([waiting, opening], return_when=asyncio.FIRST_COMPLETED)
    if not opening.done():  # told to end while the filters load
        opening.cancel()
        await asyncio.wait([opening])
        await sidecar.pool.close(0)
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
        await sidecar.pool.close(0)
    await sidecar.admin.close()
    return 0 if ended.is_set() else 2


async def _listen(group: str, opening: Awaitable[None]) -> None:
    try:
        await opening
    except OSError as error:
        raise SettingsError(
            f"{group}.host and {group}.port: cannot listen there: {error.strerror or error};"
            " choose another port, or end the program that has this one"
        ) from error


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


def _auth_of(listen: ListenSettings) -> ServerAuth | None:
    if listen.shared_key is None:
        return None
    return ServerAuth(
        shared_key=listen.shared_key.get_secret_value(),
        hostname=listen.hostname,
        users={user: password.get_secret_value() for user, password in listen.users.items()},
    )


def _tls_of(listen: ListenSettings) -> ssl.SSLContext | None:
    if listen.tls_cert_file is None:
        return None
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(listen.tls_cert_file, listen.tls_key_file)
        if listen.tls_client_ca_file is not None:
            context.load_verify_locations(listen.tls_client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:
        raise SettingsError(
            f"listen.tls_cert_file ({listen.tls_cert_file}), listen.tls_key_file"
            f" ({listen.tls_key_file}) or listen.tls_client_ca_file ({listen.tls_client_ca_file})"
            f" cannot be used: {error}; give certificates and the key that belongs to them in PEM"
        ) from error
    return context
