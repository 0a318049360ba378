"""The admin port of a running sidecar, here or at the other end of ``kubectl port-forward``."""

from __future__ import annotations

import contextlib
import http.client
import urllib.parse
from collections.abc import Iterator, Mapping

from bridge.errors import BridgeError, SettingsError

DEFAULT_URL = "http://127.0.0.1:24280"
_CONNECT_TIMEOUT = 5.0
_SILENCE = 20.0  # a sidecar says something every 2 seconds


class Unreachable(BridgeError):
    """No sidecar answers there, or no longer."""


class Refused(BridgeError):
    """The sidecar answered that it will not.

    Args:
        status: HTTP's number.
        reason: what it said.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Port:
    """A sidecar's admin port.

    Args:
        url: as in ``http://127.0.0.1:24280``.

    Raises:
        SettingsError: it is no such address.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            parts = urllib.parse.urlsplit(self.url)
            port = parts.port
        except ValueError as error:
            raise SettingsError(f"--url {url}: {error}; an example: {DEFAULT_URL}") from None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SettingsError(
                f"--url {url} is no address of a sidecar; an example: {DEFAULT_URL}"
            )
        self._secure = parts.scheme == "https"
        self._host, self._port, self._base = parts.hostname, port, parts.path

    def get(self, path: str) -> tuple[int, bytes]:
        """Return the status and the body of a page.

        Args:
            path: as in ``/metrics``.

        Raises:
            Unreachable: there is no answer.
        """
        with self._answer(path) as answer:
            return answer.status, answer.read()

    def lines(self, path: str, query: Mapping[str, str]) -> Iterator[bytes]:
        """Return the lines of a page as they come.

        Args:
            path: as in ``/tap``.
            query: parameters.

        Raises:
            Refused: the sidecar says why not.
            Unreachable: there is no answer, or the connection was lost.
        """
        with self._answer(f"{path}?{urllib.parse.urlencode(query)}") as answer:
            if answer.status == http.HTTPStatus.OK:
                if answer.headers.get_content_type() != "application/x-ndjson":
                    raise Unreachable(f"what answers at {self.url} is no sidecar")
            elif answer.status == http.HTTPStatus.NOT_FOUND:
                raise Refused(
                    answer.status, f"{self.url} has no {path}: is it a sidecar, and a new one?"
                )
            else:
                raise Refused(answer.status, answer.read().decode(errors="replace").strip())
            while line := answer.readline():
                yield line.rstrip(b"\n")

    @contextlib.contextmanager
    def _answer(self, path: str) -> Iterator[http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=_CONNECT_TIMEOUT)
        try:
            connection.connect()
            connection.sock.settimeout(_SILENCE)
            connection.request("GET", self._base + path)
            yield connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Unreachable(
                f"no sidecar answers at {self.url}: {reason}; is it running, and is this its"
                " admin.port? For a pod: kubectl port-forward POD 24280"
            ) from error
        finally:
            connection.close()
