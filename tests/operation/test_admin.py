"""The admin port over real HTTP."""

import contextlib

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bridge.admin import Admin
from bridge.metrics import Metrics


@contextlib.asynccontextmanager
async def serving(checks, metrics=None):
    admin = Admin("127.0.0.1", 0, metrics or Metrics(), lambda: checks)
    await admin.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{admin.port}") as client:
            yield client
    finally:
        await admin.close()


@pytest.mark.parametrize(
    ("checks", "status", "body"),
    [
        ({}, 200, {"ready": True, "checks": {}}),
        (
            {"filters": None, "workers": None},
            200,
            {"ready": True, "checks": {"filters": "ok", "workers": "ok"}},
        ),
        (
            {"filters": None, "workers": "no worker is ready"},
            503,
            {"ready": False, "checks": {"filters": "ok", "workers": "no worker is ready"}},
        ),
    ],
)
async def test_readiness_says_why_not(checks, status, body):
    async with serving(checks) as client, client.get("/readyz") as answer:
        assert answer.status == status
        assert await answer.json() == body
        assert (await client.get("/livez")).status == 200, "not ready is still alive"


async def test_a_warning_is_no_reason_to_be_not_ready():
    warnings = {"filters": "what is on disk cannot be loaded", "other": None}
    admin = Admin("127.0.0.1", 0, Metrics(), dict, warnings=lambda: warnings)
    await admin.start()
    try:
        url = f"http://127.0.0.1:{admin.port}/readyz"
        async with aiohttp.ClientSession() as client, client.get(url) as answer:
            assert answer.status == 200
            said = {"filters": "what is on disk cannot be loaded"}
            assert await answer.json() == {"ready": True, "checks": {}, "warnings": said}
    finally:
        await admin.close()


async def test_readiness_is_asked_each_time():
    checks = {"workers": "none is ready"}
    async with serving(checks) as client:
        assert (await client.get("/readyz")).status == 503
        checks["workers"] = None
        assert (await client.get("/readyz")).status == 200


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "text/plain; version=0.0.4"),
        # What Prometheus itself asks with.
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4", "application/openmetrics-text"),
    ],
)  # fmt: skip
async def test_metrics(accept, content_type):
    metrics = Metrics()
    metrics.received_events.inc(42)
    async with (
        serving({}, metrics) as client,
        client.get("/metrics", headers={"Accept": accept}) as answer,
    ):
        assert answer.headers["Content-Type"].startswith(content_type)
        text = await answer.text()
    assert "fluent_bridge_received_events_total 42.0" in text
    if content_type.startswith("text/plain"):
        assert len(list(text_string_to_metric_families(text))) > 20


async def test_the_index_names_the_pages_and_nothing_else_is_served():
    async with serving({}) as client:
        index = await (await client.get("/")).text()
        for page in ("/livez", "/readyz", "/metrics"):
            assert page in index
            assert (await client.head(page)).status == 200
        assert (await client.get("/debug")).status == 404
        assert (await client.post("/readyz")).status == 405


async def test_an_address_in_use_is_an_oserror_and_closing_is_right_even_so():
    async with serving({}) as client:
        other = Admin("127.0.0.1", client._base_url.port, Metrics(), dict)
        with pytest.raises(OSError, match="in use"):
            await other.start()
        await other.close()
    never_started = Admin("127.0.0.1", 0, Metrics(), dict)
    await never_started.close()
