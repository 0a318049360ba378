"""Where the service listens: a Unix socket, a TCP port with TLS or without."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
from pathlib import Path
from urllib.parse import quote

import grpc

from bridge.errors import SettingsError
from bridge.settings import RpcSettings

# Fluentd and the sidecar run as different users in one pod. Like a port of the loopback address,
# the socket is for whoever can get at it, and its folder says who can.
_MODE = 0o666


def listen(server: grpc.aio.Server, settings: RpcSettings) -> int:
    """Have a server listen where the settings say.

    Args:
        server: not started yet.
        settings: the group ``rpc``.

    Returns:
        The TCP port, 0 without one.

    Raises:
        SettingsError: it cannot listen there.
    """
    if settings.socket is not None:
        _listen_on_socket(server, settings.socket)
    if settings.port is None:
        return 0
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{host}:{settings.port}"
    try:
        if settings.tls_cert_file is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, _credentials(settings))
    except RuntimeError as error:
        raise SettingsError(
            f"rpc.host and rpc.port: cannot listen on {address}: choose another port, or end the"
            " program that has this one"
        ) from error


def unix_address(path: Path) -> str:
    """Return a socket's address as gRPC takes it: as a URI, in which a % or ? means something."""
    return f"unix:{quote(bytes(path))}"


def _listen_on_socket(server: grpc.aio.Server, path: Path) -> None:
    try:
        _clear(path)
    except OSError as error:
        raise SettingsError(
            f"rpc.socket: {path} cannot be used: {error.strerror}; name a file in a folder that"
            " this user may write to"
        ) from error
    try:
        server.add_insecure_port(unix_address(path))
    except RuntimeError as error:
        raise SettingsError(
            f"rpc.socket: cannot make {path}: name a file in a folder that exists and that this"
            " user may write to"
        ) from error
    path.chmod(_MODE)


def _clear(path: Path) -> None:
    """Remove the socket that a process left which was killed.

    gRPC itself removes whatever socket is there, and so takes a living process's callers away.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SettingsError(
            f"rpc.socket: {path} is there and is no socket: remove it, or name another file"
        )
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        failure = probe.connect_ex(os.fspath(path))
    if failure in {errno.ECONNREFUSED, errno.ENOENT}:
        path.unlink(missing_ok=True)
        return
    raise SettingsError(
        f"rpc.socket: another process listens on {path}: end it, or name another file"
        if failure in {0, errno.EAGAIN}
        else f"rpc.socket: {path} is there and cannot be tried: {os.strerror(failure)}; remove it,"
        " or name another file"
    )


def _credentials(settings: RpcSettings) -> grpc.ServerCredentials:
    assert settings.tls_cert_file is not None
    assert settings.tls_key_file is not None
    try:
        # gRPC says nothing of what is wrong with a file; the ssl module does.
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
        authorities = None
        if settings.tls_client_ca_file is not None:
            context.load_verify_locations(settings.tls_client_ca_file)
            authorities = settings.tls_client_ca_file.read_bytes()
        pair = settings.tls_key_file.read_bytes(), settings.tls_cert_file.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"rpc.tls_cert_file ({settings.tls_cert_file}), rpc.tls_key_file"
            f" ({settings.tls_key_file}) or rpc.tls_client_ca_file ({settings.tls_client_ca_file})"
            f" cannot be used: {error}; give certificates and the key that belongs to them in PEM"
        ) from error
    return grpc.ssl_server_credentials([pair], authorities, authorities is not None)
