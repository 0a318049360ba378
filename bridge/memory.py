"""Memory of processes: how the allocator treats what chunks live in, how much a process holds."""

from __future__ import annotations

import contextlib
import ctypes
import re
import resource
from pathlib import Path

# glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_KEPT = 32 << 20  # DEFAULT_MMAP_THRESHOLD_MAX: a larger threshold is refused
_KEPT = 64 << 20
_PAGE = resource.getpagesize()
_HELD = re.compile(r"^Rss(?:Anon|Shmem):\s+(\d+) kB", re.MULTILINE)


def keep_freed_buffers() -> None:
    """Have freed buffers of a chunk's size used again by this process.

    By default glibc maps each such buffer anew and gives it back when it is freed, so that the
    kernel clears its pages for every chunk: 769 page faults and a fifth of a worker's time for a
    chunk of 800 KB. Larger buffers, and more than 64 MiB at the end of the heap, are still given
    back. Without glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
    mallopt(_M_TRIM_THRESHOLD, _KEPT)


def resident(pid: int) -> int:
    """Return how many bytes of a process are in memory, mapped files too; 0 if it has ended."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE
    return 0


def held(pid: int) -> int:
    """Return how many bytes a process holds; 0 if it has ended.

    What counts is what stays until the process gives it back: its own memory and what it shares,
    but no files that are mapped. Source: proc(5), ``RssAnon`` and ``RssShmem``.
    """
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        return sum(map(int, _HELD.findall(status))) << 10
    return 0
