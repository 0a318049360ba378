"""``/tap`` on the admin port: a stream of events and what became of each, as JSON lines."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import ipaddress
from typing import Literal

from aiohttp import web

from bridge.logs import get_logger
from bridge.tap import DEFAULT_RATE, MOST_RATE, Taps, TooManyTaps

_PARAMETERS = ("pattern", "rate", "errors")
_PATIENCE = 30.0  # seconds that a reader may let a write wait before its place is given up

_log = get_logger(__name__)


class Tapping:
    """Serves ``/tap``.

    Query parameters, all optional: ``pattern``, tags in Fluentd's patterns; ``rate``, events a
    second at most; ``errors``, true for those that go to the error stream alone.

    Events hold what people did. So only who is on this host or in this pod may look, unless the
    settings say otherwise: through ``kubectl port-forward``, which Kubernetes guards, one comes
    from the pod's loopback interface.

    Args:
        taps: all who look.
        allowed: who may.
    """

    def __init__(self, taps: Taps, allowed: Literal["nobody", "local", "everyone"]) -> None:
        self._taps = taps
        self._allowed = allowed

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request, for as long as whoever asks goes on to read."""
        if refusal := self._refusal(request):
            return web.Response(status=403, text=refusal + "\n")
        with contextlib.ExitStack() as stack:
            try:
                pattern, rate, errors = _asked(request)
                opening = self._taps.open(pattern, rate=rate, errors=errors)
                subscription = stack.enter_context(opening)
            except ValueError as error:
                return web.Response(status=400, text=f"{error}\n")
            except TooManyTaps as error:
                return web.Response(status=429, text=f"{error}\n")
            # Who looked is worth a line: events may be personal data.
            _log.info("tap opened", peer=request.remote, pattern=pattern, errors=errors)
            response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
            with contextlib.suppress(ConnectionError, TimeoutError):
                await response.prepare(request)
                while lines := await subscription.read():
                    async with asyncio.timeout(_PATIENCE):
                        await response.write(b"\n".join((*lines, b"")))
                await response.write_eof()
            _log.info("tap closed", peer=request.remote, pattern=pattern)
            return response

    def _refusal(self, request: web.Request) -> str | None:
        if self._allowed == "everyone":
            return None
        if self._allowed == "nobody":
            return (
                "looking at events is turned off on this sidecar: set admin.tap to local, and come"
                " from its own host or through kubectl port-forward"
            )
        # A page that a browser on this host shows reaches this port under a name of its own (DNS
        # rebinding), and what a proxy hands on comes from loopback whoever sent it.
        handed_on = "Forwarded" in request.headers or "X-Forwarded-For" in request.headers
        # Istio's proxy hands on what it does not know from 127.0.0.6, under the Host that was sent.
        own = request.remote in {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
        if own and _is_loopback(request.url.host) and not handed_on:
            return None
        return (
            "events are shown only to who comes from the sidecar's own host or pod: use"
            " `kubectl port-forward POD 24280`, or set admin.tap to everyone"
        )


def _asked(request: web.Request) -> tuple[str, float, bool]:
    for name in request.query:
        if name not in _PARAMETERS:
            near = difflib.get_close_matches(name, _PARAMETERS, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(_PARAMETERS)}"
            raise ValueError(f"unknown parameter {name!r}: {hint}")
    text = request.query.get("rate", f"{DEFAULT_RATE:g}")
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= MOST_RATE:
        raise ValueError(
            f"rate: {text!r} is no number of events a second over 0 and up to {MOST_RATE:g}"
        )
    errors = request.query.get("errors", "false")
    if errors not in {"true", "false"}:
        raise ValueError(f"errors: {errors!r} is neither true nor false")
    return request.query.get("pattern", "**"), rate, errors == "true"


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback
