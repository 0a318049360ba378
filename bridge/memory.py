"""How the C library's allocator treats the buffers that chunks live in."""

from __future__ import annotations

import ctypes

# glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_KEPT = 32 << 20  # DEFAULT_MMAP_THRESHOLD_MAX: a larger threshold is refused
_KEPT = 64 << 20


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
