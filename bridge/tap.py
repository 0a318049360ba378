"""Who looks at events as they pass, and how many each is shown.

The transport process never decodes an event. It asks the workers for some, as many as those who
look may still be shown at that moment, and hands on the lines that come back. Nobody who looks can
slow the pipeline: what is asked for is bounded, and so is what waits to be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator

import msgspec

from bridge import tags
from bridge.errors import BridgeError

#: Events a second that one may be shown at most, and unless one says otherwise.
MOST_RATE = 100.0
DEFAULT_RATE = 10.0

_MOST_TAPS = 4
_MOST_WAITING = 256  # lines for a reader, each of them some 20 KiB at most
_MOST_TAGS = 1024
# The transport process matches tags, in time that grows with the tag's length to the power of the
# wildcards; what is more could hold up all chunks, as a regular expression could.
_MOST_WILDCARDS = 3
_LONGEST_TAG = 512
_STATUS_EVERY = 2.0  # seconds; it also shows each side that the other is still there


class TooManyTaps(BridgeError):
    """As many look as may."""


class Status(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was not shown.

    Attributes:
        passed: events under matching tags so far, as many as senders said there are.
        missed: events that came faster than they were read.
        ended: whether this is the last line, because the sidecar ends.
    """

    passed: int
    missed: int
    ended: bool = False


class Subscription:
    """One who looks.

    Args:
        pattern: tags to look at, in Fluentd's patterns.
        rate: events a second to be shown at most.
        errors: look only at events that go to the error stream.

    Raises:
        ValueError: the pattern cannot be used.
    """

    def __init__(self, pattern: str, *, rate: float, errors: bool) -> None:
        for glob in pattern.split():
            if glob.startswith("/"):
                raise ValueError(
                    f"pattern: {glob!r} is a regular expression, which a tap does not take: write"
                    " it with * ** {a,b}"
                )
            if len(re.findall(r"\*+", glob)) > _MOST_WILDCARDS:
                raise ValueError(
                    f"pattern: {glob!r} has more than {_MOST_WILDCARDS} wildcards: leave some out"
                )
        self.errors = errors
        self._matches = tags.matcher(pattern)
        self._everything = "**" in pattern.split()
        self._known: dict[bytes, bool] = {}
        self._rate = rate
        self._burst = max(rate, 1.0)
        self._allowed = self._burst
        self._since = time.monotonic()
        self._lines: deque[bytes] = deque()
        self._passed = 0
        self._missed = 0
        self._changed = asyncio.Event()
        self._ended = False
        self._greeted = False
        self._told = False

    def ask(self, tag: bytes, count: int | None) -> int:
        """Return how many events of a chunk to ask a worker for.

        Args:
            tag: the chunk's tag.
            count: how many events it is said to have.
        """
        matches = self._known.get(tag)
        if matches is None:
            if len(self._known) >= _MOST_TAGS:
                self._known.clear()
            text = tag.decode("utf-8", "surrogateescape")
            matches = self._known[tag] = self._everything or (
                len(tag) <= _LONGEST_TAG and self._matches(text)
            )
        if not matches:
            return 0
        self._passed += count or 0
        now = time.monotonic()
        self._allowed = min(self._allowed + (now - self._since) * self._rate, self._burst)
        self._since = now
        wanted = max(int(self._allowed), 0)
        if not self.errors:  # of which there may be none: they are counted when they come
            self._allowed -= wanted
        return wanted

    def show(self, line: bytes) -> None:
        """Take an event that a worker was asked for, as JSON."""
        if self.errors:
            if self._allowed < 1:  # several workers were asked at once
                return
            self._allowed -= 1
        if len(self._lines) < _MOST_WAITING:
            self._lines.append(line)
        else:
            self._missed += 1
        self._changed.set()

    def end(self) -> None:
        """Let the reader have what is there, and then no more."""
        self._ended = True
        self._changed.set()

    async def read(self) -> list[bytes]:
        """Return a status and the lines that came, nothing more once it has said that it ended.

        The status comes alone where nothing else does for a while, and at first at once.
        """
        if self._told:
            return []
        if self._greeted:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STATUS_EVERY):
                    await self._changed.wait()
        self._changed.clear()
        self._greeted = True
        self._told = self._ended
        lines = [msgspec.json.encode(Status(self._passed, self._missed)), *self._lines]
        self._lines.clear()
        if self._ended:
            lines.append(msgspec.json.encode(Status(self._passed, self._missed, ended=True)))
        return lines


class Taps:
    """All who look."""

    def __init__(self) -> None:
        self._subscriptions: dict[int, Subscription] = {}
        self._number = 0

    @contextlib.contextmanager
    def open(self, pattern: str, *, rate: float, errors: bool) -> Iterator[Subscription]:
        """Look, until the context is left.

        Args:
            pattern: tags to look at, in Fluentd's patterns.
            rate: events a second to be shown at most.
            errors: look only at events that go to the error stream.

        Raises:
            TooManyTaps: no more may.
            ValueError: the pattern cannot be used.
        """
        if len(self._subscriptions) >= _MOST_TAPS:
            raise TooManyTaps(
                f"{_MOST_TAPS} taps are open on this sidecar, which is as many as may: end one"
            )
        subscription = Subscription(pattern, rate=rate, errors=errors)
        self._number += 1
        number = self._number
        self._subscriptions[number] = subscription
        try:
            yield subscription
        finally:
            self._subscriptions.pop(number, None)

    def ask(self, tag: bytes, count: int | None) -> tuple[tuple[int, int, bool], ...]:
        """Return who wants to see how many events of a chunk, and whether only errors.

        Args:
            tag: the chunk's tag.
            count: how many events it is said to have.
        """
        if not self._subscriptions:
            return ()
        return tuple(
            (number, wanted, one.errors)
            for number, one in self._subscriptions.items()
            if (wanted := one.ask(tag, count))
        )

    def show(self, tapped: Iterable[tuple[int, bytes]]) -> None:
        """Hand on what a worker took: for whom, and an event as JSON."""
        for number, line in tapped:
            subscription = self._subscriptions.get(number)
            if subscription is not None:
                subscription.show(line)

    def close(self) -> None:
        """End all."""
        for subscription in self._subscriptions.values():
            subscription.end()
