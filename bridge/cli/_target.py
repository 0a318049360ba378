"""What ``fluent-bridge feed`` and ``replay`` send to, made from their flags."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple

import typer

from bridge import loading
from bridge.errors import SettingsError
from bridge.feed import FiltersTarget, ForwardTarget, RpcTarget, Target
from bridge.forward import Client, tls_context
from bridge.pipeline import Pipeline
from bridge.settings import CONFIG_FLAG, Settings
from bridge.workers.process import Gatherer

_WINDOW = 8  # chunks on their way at a time, as the sidecar's own downstream connections have
_PORT = 24224


class Tls(NamedTuple):
    """The flags for TLS."""

    on: bool
    ca_file: Path | None
    cert_file: Path | None
    key_file: Path | None


def settings_of(config: str | None, filters: str | None, payload: str | None) -> Settings:
    """Return the sidecar's settings, as ``run`` would have them with these flags.

    Raises:
        SettingsError: they cannot be used.
    """
    flags = {CONFIG_FLAG: config, "--filters.path": filters, "--filters.payload": payload}
    return Settings.load([f"{flag}={value}" for flag, value in flags.items() if value is not None])


def target_of(
    to: str | None,
    socket: str | None,
    filters: str | None,
    *,
    settings: Settings,
    username: str | None,
    tls: Tls,
    timeout: float,
) -> Target:
    """Return what the flags name.

    Raises:
        SettingsError, LoadError: it cannot be used.
        typer.BadParameter: they name more than one, or what is none.
    """
    if sum(where is not None for where in (to, socket, filters)) > 1:
        raise typer.BadParameter("--to, --socket and --filters exclude each other")
    if socket is not None:
        return RpcTarget(socket, timeout)
    if filters is not None:
        return _filters(settings, timeout)
    return ForwardTarget(client(to, settings, username, tls, timeout))


def client(
    address: str | None, settings: Settings, username: str | None, tls: Tls, timeout: float
) -> Client:
    """Return a client of a Forward server.

    Args:
        address: ``host:port``; None for where a sidecar with these settings listens.
        settings: have the shared key and the users' passwords.
        username: the user to log in as.
        tls: the flags.
        timeout: seconds to wait for an acknowledgement.

    Raises:
        SettingsError: a secret is missing, or a file for TLS cannot be used.
        typer.BadParameter: the address is none.
    """
    listen = settings.listen
    host, port = listen.host, listen.port or _PORT
    if address is not None:
        host, port = _address(address)
    password = None
    if username is not None:
        if listen.shared_key is None or username not in listen.users:
            raise SettingsError(
                f"--username {username} needs listen.shared_key and a password for it in"
                f" listen.users: set FLUENT_BRIDGE_LISTEN__SHARED_KEY and"
                f" FLUENT_BRIDGE_LISTEN__USERS__{username}, or name the sidecar's file by --config"
            )
        password = listen.users[username].get_secret_value()
    context = None
    if tls.on:
        try:
            context = tls_context(
                ca_file=tls.ca_file, cert_file=tls.cert_file, key_file=tls.key_file
            )
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"--tls-ca-file, --tls-cert-file or --tls-key-file cannot be used: {error}; give"
                " certificates and the key that belongs to them in PEM"
            ) from error
    elif tls.ca_file or tls.cert_file or tls.key_file:
        raise typer.BadParameter("files for TLS are given, but not --tls: nothing would use them")
    return Client(
        host,
        port,
        window=_WINDOW,
        shared_key=listen.shared_key.get_secret_value() if listen.shared_key else None,
        username=username,
        password=password,
        tls=context,
        timeout=timeout,
    )


def _filters(settings: Settings, timeout: float) -> FiltersTarget:
    """Return the filters of the settings' folder, loaded here, as a target.

    Raises:
        ExceptionGroup: of :class:`LoadError`: they cannot be loaded.
    """
    chosen = settings.filters
    pipeline = Pipeline(
        loading.load(chosen.path, chosen.parameters),
        payload=chosen.payload,
        payload_key=chosen.payload_key,
        gather=Gatherer(),
    )
    return FiltersTarget(pipeline, str(chosen.path), timeout)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        host, port = text, str(_PORT)
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise typer.BadParameter(f"--to {text} is no HOST:PORT, as in 127.0.0.1:{_PORT}")
    return host.strip("[]"), int(port)
