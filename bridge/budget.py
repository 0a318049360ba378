"""The bound on the bytes in flight: who has no room waits, and does not read meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from prometheus_client import Gauge

# What a chunk costs beside its bytes: a task, its frames, a worker's queue. Without it a flood of
# messages of one event each would pass a bound on bytes.
_OVERHEAD = 8192


class Budget:
    """Bytes that chunks and their results hold.

    Each reserve or take is one chunk, or the results of one, and is given back by one release of
    its size.

    Args:
        limit: bytes.
        gauge: shows the bytes held.

    Attributes:
        held: bytes held, what a chunk costs beside them included.
        on_room: called after bytes were given back: more may be run.
    """

    def __init__(self, limit: int, gauge: Gauge) -> None:
        self.limit = limit
        self.held = 0
        self.on_room: Callable[[], None] = lambda: None
        self._results = 0
        self._granting = False
        self._gauge = gauge
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()

    @property
    def full(self) -> bool:
        """Whether there is no room for a message of unknown size."""
        return self.held > self.limit

    @property
    def takes_results(self) -> bool:
        """Whether another chunk may be run.

        Results may be many times what they are made from. One is always run: there may be nothing
        but chunks that wait.
        """
        return not self._results or self.held < self.limit

    def reserve(self, size: int, granted: Callable[[], None]) -> bool:
        """Return whether the bytes were reserved at once; ``granted`` is called later if not.

        Args:
            size: bytes, at most the limit.
            granted: called later, first come first served, unless :meth:`forget` comes before.
        """
        if not self._waiting and self._fits(size):
            self.take(size)
            return True
        self._waiting.append((size, granted))
        return False

    def take(self, size: int) -> None:
        """Hold bytes that are there already: a message of unannounced size."""
        self.held += size + _OVERHEAD
        self._gauge.set(self.held)

    def grow(self, size: int) -> None:
        """Hold more for something that is held already; given back together with it."""
        self.held += size
        self._gauge.set(self.held)

    def release(self, size: int) -> None:
        """Give bytes back."""
        self.held -= size + _OVERHEAD
        if self._granting:  # by one who was granted room and has no use for it: the loop goes on
            return
        self._granting = True
        try:
            while self._waiting and self._fits(self._waiting[0][0]):
                waiting, granted = self._waiting.popleft()
                self.held += waiting + _OVERHEAD
                granted()
        finally:
            self._granting = False
        self._gauge.set(self.held)
        self.on_room()

    def take_results(self, size: int) -> None:
        """Hold the results of a chunk."""
        self._results += 1
        self.take(size)

    def release_results(self, size: int) -> None:
        """Give back what :meth:`take_results` took."""
        self._results -= 1
        self.release(size)

    def forget(self, granted: Callable[[], None]) -> None:
        """Stop waiting, because the connection has ended."""
        self._waiting = deque(one for one in self._waiting if one[1] != granted)

    def _fits(self, size: int) -> bool:
        # A message of exactly the limit has to get through when nothing else is there.
        return self.held + size <= self.limit or not self.held
