"""Forward in, Forward out: all between a sender of chunks and the receiver of their results."""

from __future__ import annotations

import ssl
import time
from collections.abc import Awaitable

from bridge.budget import Budget
from bridge.delivery.chain import Chain
from bridge.delivery.downstream import Downstream
from bridge.delivery.window import Window
from bridge.errors import SettingsError
from bridge.forward import ServerAuth
from bridge.logs import get_logger
from bridge.metrics import Metrics
from bridge.server.connection import Limits
from bridge.server.server import Server
from bridge.settings import ListenSettings, Settings
from bridge.workers.rescue import Rescue

_log = get_logger(__name__)


class ForwardRoad:
    """Forward in, Forward out, with an acknowledgement for what was delivered.

    Args:
        settings: all settings.
        rescue: runs chunks on the workers.
        budget: bytes in flight.
        metrics: where to count.
    """

    def __init__(
        self, settings: Settings, rescue: Rescue, budget: Budget, metrics: Metrics
    ) -> None:
        self._listen = settings.listen
        self._window_file = settings.delivery.window_file
        self._window = Window(settings.delivery.recent_chunks)
        self._downstream = Downstream(settings.downstream, metrics)
        self._chain = Chain(
            rescue,
            self._downstream,
            window=self._window,
            budget=budget,
            patience=settings.delivery.patience,
            metrics=metrics,
        )
        self._server = Server(
            self._chain.accept,
            limits=Limits(
                max_message_bytes=self._listen.max_message_bytes,
                receive_timeout=self._listen.receive_timeout,
            ),
            budget=budget,
            metrics=metrics,
            auth=_auth_of(self._listen),
            tls=_tls_of(self._listen),
        )
        self._listening = False

    @property
    def readiness(self) -> dict[str, str | None]:
        """What is wrong with each of its parts, None where nothing is."""
        return {
            "listener": None if self._listening else "not listening yet",
            "downstream": self._downstream.loss,
        }

    @property
    def addresses(self) -> dict[str, str]:
        """Where it listens, and where it delivers to."""
        return {
            "listen": f"{self._listen.host}:{self._server.port}",
            "downstream": self._downstream.address,
        }

    def load(self) -> None:
        """Take the window of the process before this one.

        Raises:
            SettingsError: its file cannot be used.
        """
        if self._window_file is None:
            return
        try:
            self._window.load(self._window_file)
            self._window.save(self._window_file)
        except OSError as error:
            raise SettingsError(
                f"delivery.window_file: {self._window_file} cannot be read and written:"
                f" {error.strerror}; name a file in a folder that this user may write to"
            ) from error

    async def open(self) -> None:
        """Connect downstream and listen.

        Raises:
            SettingsError: the address cannot be listened on.
        """
        self._downstream.open()
        await listen("listen", self._server.open(self._listen.host, self._listen.port))
        self._listening = True

    async def drain(self, grace: float) -> bool:
        """Answer what is in flight; return whether that was done in time.

        Args:
            grace: seconds.
        """
        ends = time.monotonic() + grace
        self._chain.drain()
        drained = await self._server.drain(grace)
        return await self._chain.finish(ends - time.monotonic()) and drained

    async def close(self) -> None:
        """Give up what is left, and keep the window for the next process."""
        await self._chain.close()
        if self._window_file is not None:
            try:
                self._window.save(self._window_file)
            except OSError as error:
                _log.error("window not saved", file=str(self._window_file), reason=error.strerror)
        await self._downstream.close()


async def listen(group: str, opening: Awaitable[None]) -> None:
    """Wait until something listens.

    Args:
        group: the group of settings that say where.
        opening: does it.

    Raises:
        SettingsError: the address cannot be listened on.
    """
    try:
        await opening
    except OSError as error:
        raise SettingsError(
            f"{group}.host and {group}.port: cannot listen there: {error.strerror or error};"
            " choose another port, or end the program that has this one"
        ) from error


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
