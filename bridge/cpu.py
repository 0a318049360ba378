"""How many CPUs this process may use: the container's quota, not what the host has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def cpu_quota(root: Path = Path("/")) -> int:
    """Return the number of CPUs that the process may keep busy, rounded up, at least 1.

    It is the least of the CPUs the scheduler lets it run on and the quotas of its control group
    and of every group above that. ``os.cpu_count()`` is the host's and would start 64 workers in
    a pod with two CPUs. Source: Linux, admin-guide/cgroup-v2.rst "cpu.max" and
    scheduler/sched-bwc.rst.

    Args:
        root: the folder that holds ``proc`` and ``sys``.
    """
    limits = [float(len(os.sched_getaffinity(0))), *_quotas(root)]
    return max(1, math.ceil(min(limits)))


def _quotas(root: Path) -> Iterator[float]:
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        mounts = root / "sys/fs/cgroup"
        if not controllers:  # version 2
            for folder in _upwards(mounts, path):
                quota, _, period = _read(folder / "cpu.max").partition(" ")
                yield from _quota(quota, period)
        elif "cpu" in controllers.split(","):
            for mount in (mounts / controllers, mounts / "cpu"):
                for folder in _upwards(mount, path):
                    yield from _quota(
                        _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
                    )


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """Give a group's folder, then those above it up to the mount.

    Without a namespace of its own a container sees the host's path, which does not exist below
    its mount; the mount itself is then the container's group.
    """
    folder = mount / path.lstrip("/")
    yield folder
    if folder != mount:
        yield from (above for above in folder.parents if above.is_relative_to(mount))


def _quota(quota: str, period: str) -> Iterator[float]:
    # "max" and -1 are no limit.
    if quota.strip().isdigit() and period.strip().isdigit() and int(period):
        yield int(quota) / int(period)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except OSError:
        return ""
