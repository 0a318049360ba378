"""The run: letters read, selected, sent batch by batch, and counted."""

from __future__ import annotations

import functools
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from bridge.errors import SampleError
from bridge.replay.ledger import Ledger
from bridge.replay.letters import Found, Letter, NotALetter, Place
from bridge.replay.selection import Condition
from bridge.replay.targets import NotSendable, Packed, Target

_BATCH = 1_000  # letters
_BATCH_BYTES = 8 << 20
_BATCHES_A_SECOND = 10  # at a rate
_REASON = 100  # characters


class Kind(NamedTuple):
    """Letters that are counted together."""

    tag: str
    error: str
    filter: str
    reason: str


@dataclass(slots=True)
class Tally:
    """What a run came to.

    Attributes:
        read: letters looked at, and what was none.
        replayed: sent and written down; in a dry run those that would be.
        unselected: left out by the conditions.
        before: replayed by an earlier run.
        not_letters: what is no dead letter.
        not_sendable: selected, and of no use to the target.
        kinds: how many of each kind of those replayed, and the most attempts at one.
    """

    read: int = 0
    replayed: int = 0
    unselected: int = 0
    before: int = 0
    not_letters: int = 0
    not_sendable: int = 0
    kinds: Counter[Kind] = field(default_factory=Counter)
    attempts: Counter[Kind] = field(default_factory=Counter)

    @property
    def right(self) -> bool:
        """Whether all that was selected went, and there was a letter if there was anything."""
        return not self.not_sendable and not (0 < self.read == self.not_letters)


@dataclass(slots=True)
class Replay:
    """A run over letters.

    Args:
        ledger: what was replayed before; what is replayed now is added.
        target: where events go.
        selected: which letters are meant.
        limit: most letters to replay; None for all.
        rate: most letters a second; None for as many as can be.
        dry: whether nothing is sent and written down.
        warn: called with a line for whatever is skipped that is not as it should be.
        progress: called with the tally now and then.
    """

    ledger: Ledger
    target: Target
    selected: Condition
    limit: int | None = None
    rate: float | None = None
    dry: bool = False
    warn: Callable[[str], object] = print
    progress: Callable[[Tally], object] = lambda _: None
    tally: Tally = field(default_factory=Tally)
    _began: float = field(default_factory=time.monotonic)

    def run(self, found: Iterable[Found]) -> Tally:
        """Replay what is found and selected.

        Args:
            found: letters, in the order of their places.

        Returns:
            The tally; it is also :attr:`tally`, which is right when this raises.

        Raises:
            SampleError: a file cannot be read further; what stands before has been replayed.
            ReplayError, DeliveryError, ProtocolError: see the target and the ledger.
        """
        batch: list[tuple[Place, Packed]] = []
        size = 0
        most = (
            _BATCH if self.rate is None else max(1, min(_BATCH, int(self.rate / _BATCHES_A_SECOND)))
        )
        chosen = self._choose(found)
        broken: SampleError | None = None
        while True:
            try:
                one = next(chosen, None)
            except SampleError as error:
                one, broken = None, error
            if one is not None:
                batch.append(one)
                size += len(one[1].value or b"")
            if batch and (one is None or len(batch) >= most or size >= _BATCH_BYTES):
                self._deliver(batch)
                batch, size = [], 0
            if one is None:
                break
        self.progress(self.tally)
        if broken is not None:
            raise broken
        return self.tally

    def _choose(self, found: Iterable[Found]) -> Iterator[tuple[Place, Packed]]:
        tally = self.tally
        chosen = 0
        for place, name, letter in found:
            if self.limit is not None and chosen >= self.limit:
                return
            tally.read += 1
            if tally.read % _BATCH == 0:
                self.progress(tally)
            if isinstance(letter, NotALetter):
                tally.not_letters += 1
                self.warn(f"{name}: no dead letter: {letter}")
            elif place in self.ledger:
                tally.before += 1
            elif not self.selected(letter):
                tally.unselected += 1
            else:
                try:
                    packed = self.target.pack(letter)
                except NotSendable as error:
                    tally.not_sendable += 1
                    self.warn(f"{name}: {error}")
                    continue
                chosen += 1
                self._count(letter)
                yield place, packed

    def _count(self, letter: Letter) -> None:
        error = letter.error
        reason = str(error.get("message") or "").partition("\n")[0]
        kind = Kind(
            letter.tag,
            str(error.get("class")),
            str(error.get("filter") or "-"),
            reason if len(reason) <= _REASON else f"{reason[: _REASON - 3]}...",
        )
        self.tally.kinds[kind] += 1
        attempts = error.get("attempts")
        if isinstance(attempts, int):
            self.tally.attempts[kind] = max(self.tally.attempts[kind], attempts)

    def _deliver(self, batch: list[tuple[Place, Packed]]) -> None:
        if not self.dry:
            if self.rate is not None:
                due = self._began + self.tally.replayed / self.rate
                time.sleep(max(0.0, due - time.monotonic()))
            send = functools.partial(self.target.send, [packed for _, packed in batch])
            with _interrupted_after():
                self.ledger.deliver([place for place, _ in batch], send)
                self.tally.replayed += len(batch)
        else:
            self.tally.replayed += len(batch)
        self.progress(self.tally)


@contextmanager
def _interrupted_after() -> Iterator[None]:
    """Have Ctrl-C wait for what is begun; a second one does not wait.

    Between the delivery of a batch and its entry in a ledger it would send the batch twice.
    """
    asked = False

    def note(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt
