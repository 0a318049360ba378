"""Which letters have been replayed, and the file beside a file of letters that says so."""

from __future__ import annotations

import bisect
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

from confluent_kafka import Producer

from bridge.errors import SettingsError
from bridge.events import EventTime
from bridge.replay.letters import Place

_HEAD = 4096  # bytes by which a file is known again: one that grows keeps them


class Ledger(Protocol):
    """The record of what was replayed."""

    def __contains__(self, place: Place) -> bool:
        """Return whether the letter was replayed before this run."""

    def deliver(self, places: Sequence[Place], send: Callable[[Producer | None], object]) -> None:
        """Send letters, and write down that they were replayed.

        Args:
            places: theirs, in the order in which they stand.
            send: returns when they are delivered or, if it is given a producer, written into the
                transaction that is open in that.
        """


class Ranges:
    """Offsets, as few ranges."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def add(self, ranges: Iterable[Sequence[int]]) -> None:
        """Add ranges of a first and a last offset each."""
        both = sorted([*zip(self._firsts, self._lasts, strict=True), *map(tuple, ranges)])
        self._firsts, self._lasts = [], []
        for first, last in both:
            if self._lasts and first <= self._lasts[-1] + 1:
                self._lasts[-1] = max(self._lasts[-1], last)
            else:
                self._firsts.append(first)
                self._lasts.append(last)

    def __contains__(self, offset: int) -> bool:
        index = bisect.bisect_right(self._firsts, offset) - 1
        return index >= 0 and offset <= self._lasts[index]


def ranges(places: Iterable[Place]) -> dict[int, list[list[int]]]:
    """Return the offsets of places as ranges, for each part.

    Places whose turns follow each other are one range: nothing can be read between them.

    Args:
        places: in the order in which they stand.
    """
    found: dict[int, list[list[int]]] = {}
    turns: dict[int, int] = {}
    for place in places:
        of_part = found.setdefault(place.part, [])
        if turns.get(place.part) == place.turn - 1:
            of_part[-1][1] = place.offset
        else:
            of_part.append([place.offset, place.offset])
        turns[place.part] = place.turn
    return found


class FileLedger:
    """The ledger of a file of letters: JSON lines, the first of which says which file it is for.

    A line is written after its letters have been delivered, and is on the disk before the next are
    sent. One that a kill cut off is no entry: its letters go again.

    Args:
        file: the file of letters.
        ledger: the ledger; None for the file's name with ``.replayed``.
        read_only: whether nothing will be written.

    Raises:
        SettingsError: it cannot be used, is another file's, or another run writes to it now.
    """

    def __init__(self, file: Path, ledger: Path | None = None, *, read_only: bool = False) -> None:
        self.path = ledger or file.with_name(f"{file.name}.replayed")
        self._numbers = Ranges()
        self._stream: BinaryIO | None = None
        try:
            # In one step: what is read here must be all that was ever written.
            if not read_only:
                self._stream = self.path.open("ab+")
                self._lock(self._stream)
            self._load(file)
        except OSError as error:
            self.close()
            raise SettingsError(
                f"the ledger {self.path} cannot be used: {error.strerror}; name another with"
                " --ledger"
            ) from error
        except BaseException:
            self.close()
            raise

    def __contains__(self, place: Place) -> bool:
        return place.offset in self._numbers

    def deliver(self, places: Sequence[Place], send: Callable[[Producer | None], object]) -> None:
        """Send letters, then write down that they were."""
        send(None)
        self._write({"at": EventTime.now().isoformat(), "letters": ranges(places)[0]})

    def close(self) -> None:
        """Let others use it."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lock(self, stream: BinaryIO) -> None:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(
                f"another replay writes to the ledger {self.path} now: let it end first"
            ) from None

    def _load(self, file: Path) -> None:
        if self._stream is None and not self.path.exists():
            return
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if self._stream is not None and whole < len(data):
            self._stream.truncate(whole)
        lines = data[:whole].splitlines()
        if not lines:
            if self._stream is not None:
                self._write({"file": file.name, **_identity(file)})
            return
        try:
            head, *entries = map(json.loads, lines)
            self._numbers.add(found for entry in entries for found in entry["letters"])
            theirs = _identity(file, head["bytes"])
            same = head["sha256"] == theirs["sha256"]
        except (ValueError, TypeError, KeyError) as error:
            raise SettingsError(
                f"{self.path} is no ledger of a replay ({error!r}): name another with --ledger"
            ) from None
        if not same:
            raise SettingsError(
                f"{self.path} is the ledger of another file, {head['file']} as it was when it"
                f" began otherwise than {file} does now; move it away, or name another with"
                " --ledger"
            )

    def _write(self, entry: dict[str, Any]) -> None:
        assert self._stream is not None
        self._stream.write(json.dumps(entry).encode() + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())


def _identity(file: Path, length: int = _HEAD) -> dict[str, Any]:
    with file.open("rb") as stream:
        head = stream.read(length)
    return {"bytes": len(head), "sha256": hashlib.sha256(head).hexdigest()}
