"""The HTTP port for health and metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from bridge.metrics import Metrics

_PAGES = {
    "/livez": "200 as long as the event loop turns",
    "/readyz": "200 when ready, else 503; says what is not ready and why",
    "/metrics": "metrics in Prometheus' format",
    "/tap": "events as they pass, and what becomes of each: see `fluent-bridge tap --help`",
}


class Admin:
    """Serves ``/livez``, ``/readyz``, ``/metrics`` and ``/tap``.

    Livez and readyz are Kubernetes' own names for the two probes. Liveness asks nothing but an
    answer: a sidecar whose downstream is away must not be killed, or its chunks come twice.

    Args:
        host: the address to listen on.
        port: the port; 0 is any free one.
        metrics: what ``/metrics`` shows.
        readiness: returns each thing that readiness depends on, with what is wrong with it or None.
        tap: answers requests for ``/tap``.
        warnings: returns what is wrong, though events pass, by what it is about.
    """

    def __init__(
        self,
        host: str,
        port: int,
        metrics: Metrics,
        readiness: Callable[[], Mapping[str, str | None]],
        tap: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None,
        *,
        warnings: Callable[[], Mapping[str, str | None]] = dict,
    ) -> None:
        self._host = host
        self._port = port
        self._metrics = metrics
        self._readiness = readiness
        self._warnings = warnings
        app = web.Application()
        app.router.add_get("/", self._index)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._show_metrics)
        if tap is not None:
            app.router.add_get("/tap", tap, allow_head=False)
        # A line for every probe and scrape would bury the log.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    @property
    def port(self) -> int:
        """Return the port listened on, once started."""
        return self._port

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be listened on.
        """
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        self._port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Stop listening and end what is open; also right when it never started."""
        await self._runner.cleanup()

    async def _index(self, _: web.Request) -> web.Response:
        return web.Response(text="".join(f"{page:10} {what}\n" for page, what in _PAGES.items()))

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        checks = self._readiness()
        ready = not any(checks.values())
        answer: dict[str, Any] = {
            "ready": ready,
            "checks": {name: why or "ok" for name, why in checks.items()},
        }
        if warnings := {name: why for name, why in self._warnings().items() if why}:
            answer["warnings"] = warnings
        # Indented: it is read by people, with kubectl or curl.
        body = msgspec.json.format(msgspec.json.encode(answer))
        return web.Response(
            body=body + b"\n", content_type="application/json", status=200 if ready else 503
        )

    async def _show_metrics(self, request: web.Request) -> web.Response:
        body, content_type = self._metrics.render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})
