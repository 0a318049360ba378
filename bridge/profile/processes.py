"""Measuring in several processes at the same time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier

from bridge import loading
from bridge.filters import Registry
from bridge.forward import Chunk
from bridge.profile.measuring import measure
from bridge.profile.profile import Profile
from bridge.settings import FiltersSettings

_START = 120.0  # seconds in which all processes are to be warm


def measure_at_once(
    registry: Registry,
    chunks: Sequence[Chunk],
    seconds: float,
    *,
    settings: FiltersSettings,
    processes: int,
) -> Profile:
    """Measure in several processes at the same time, as the workers of a sidecar are.

    Args:
        registry: the filters as this process has loaded them; the other processes load their own.
        chunks: as for :func:`measure`.
        seconds: as for :func:`measure`.
        settings: what to load, and the payload.
        processes: how many, this one included.

    Returns:
        What all of them measured, summed.
    """
    payload = {"payload": settings.payload, "payload_key": settings.payload_key}
    if processes == 1:
        return measure(registry, chunks, seconds, **payload)  # type: ignore[arg-type]
    context = multiprocessing.get_context("spawn")  # as workers: a fork has this one's threads
    barrier = context.Barrier(processes)
    with ProcessPoolExecutor(
        processes - 1, context, initializer=_wait_at, initargs=(barrier,)
    ) as pool:
        others = [
            pool.submit(_measure_there, settings, list(chunks), seconds)
            for _ in range(processes - 1)
        ]
        try:
            _wait_at(barrier)
            profile = measure(registry, chunks, seconds, start=_wait, **payload)  # type: ignore[arg-type]
        except BaseException:
            barrier.abort()
            raise
        for other in others:
            profile.add(other.result())
        return profile


_barriers: list[Barrier] = []


def _wait_at(barrier: Barrier) -> None:
    _barriers[:] = [barrier]


def _wait() -> None:
    _barriers[0].wait(_START)


def _measure_there(settings: FiltersSettings, chunks: list[Chunk], seconds: float) -> Profile:
    try:
        return measure(
            loading.load(settings.path, settings.parameters),
            chunks,
            seconds,
            payload=settings.payload,
            payload_key=settings.payload_key,
            start=_wait,
        )
    except BaseException:
        _barriers[0].abort()
        raise
