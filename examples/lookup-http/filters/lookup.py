"""Clicks get what another service knows of their campaign, asked over HTTP."""

import asyncio
import os
from time import monotonic

import aiohttp
import msgspec

import bridge

AWAY = frozenset({429, 502, 503, 504})
CONCURRENCY = 32

requests = bridge.counter("campaign_requests_total", "Requests.", labels=("status",))


class Campaign(msgspec.Struct, frozen=True):
    """What the service answers. An answer that lacks a field is an error, not a None later on."""

    name: str
    owner: str


@bridge.filter("ad.click", concurrency=CONCURRENCY)
class Lookup:
    """Add the campaign's name and owner.

    Args:
        url: the service; by default what the environment's LOOKUP_URL holds.
        timeout: seconds that a request may take.
        ttl: seconds that an answer is good for; 404 is an answer, too.
        pause: seconds until a service that was away is asked again.
        cache: how many answers each worker remembers.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout: float = 2.0,
        ttl: float = 300.0,
        pause: float = 1.0,
        cache: int = 50_000,
    ) -> None:
        self._url = url or os.environ.get("LOOKUP_URL", "http://127.0.0.1:8099/campaign")
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._ttl = ttl
        self._pause = pause
        self._size = cache
        self._session: aiohttp.ClientSession | None = None
        # Tasks, not answers: events that want the same campaign at once wait for one request.
        self._cache: dict[str, tuple[float, asyncio.Task[Campaign | None]]] = {}
        self._away_until = 0.0

    async def __call__(self, record: dict[str, object]) -> dict[str, object]:
        key = str(record["campaign_id"])
        expires, task = self._cache.get(key, (0.0, None))
        if task is None or expires < monotonic():
            task = self._ask(key)
        try:
            campaign = await task
        except BaseException:
            if self._cache.get(key, (0.0, None))[1] is task:
                del self._cache[key]  # only answers are remembered
            raise
        if campaign is None:
            raise bridge.Reject(f"no campaign {key!r} at {self._url}")
        record["campaign"], record["owner"] = campaign.name, campaign.owner
        return record

    async def close(self) -> None:
        """Close the connections: the worker ends."""
        if self._session is not None:
            await self._session.close()

    def _ask(self, key: str) -> asyncio.Task[Campaign | None]:
        task = asyncio.create_task(self._fetch(key))
        self._cache.pop(key, None)
        self._cache[key] = (monotonic() + self._ttl, task)
        if len(self._cache) > self._size:
            del self._cache[next(iter(self._cache))]  # the oldest: a dict keeps its order
        return task

    async def _fetch(self, key: str) -> Campaign | None:
        # A service that is away must not cost each event its timeout: a chunk would overrun
        # workers.deadline, and its worker be replaced.
        if monotonic() < self._away_until:
            raise bridge.Retry(self._pause)
        if self._session is None:  # not in __init__: it needs the loop that runs now
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        try:
            # As a parameter, never in the path: a key of "../admin" is the record's, not ours.
            async with self._session.get(self._url, params={"id": key}) as answer:
                requests.inc(status=answer.status)
                if answer.status == 404:
                    return None
                if answer.status not in AWAY:
                    answer.raise_for_status()
                    return msgspec.json.decode(await answer.read(), type=Campaign)
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError) as error:
            requests.inc(status=type(error).__name__)
        self._away_until = monotonic() + self._pause
        raise bridge.Retry(self._pause)
