"""Where letters come from: a file or a topic, each with its ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, Self

from bridge.errors import SettingsError
from bridge.replay.cluster import Cluster, Contents
from bridge.replay.ledger import FileLedger, Ledger
from bridge.replay.letters import Found, Letter, NotALetter, Place, letter_of, unpack
from bridge.replay.transactions import TopicLedger
from bridge.samples import Format, read


class Source(Protocol):
    """Letters in the order in which they stand.

    Attributes:
        ledger: which of them have been replayed.
        total: about how many there are, None if nobody knows.
    """

    ledger: Ledger
    total: int | None

    def __enter__(self) -> Self:
        """Return itself."""

    def __exit__(self, *_: object) -> None:
        """Let others use the ledger."""

    def __iter__(self) -> Iterator[Found]:
        """Yield what is there, letters or not.

        Raises:
            SampleError, ReplayError: it cannot be read further.
        """


class FileSource:
    """The letters of a file, counted from 1.

    Args:
        file: events as ``bridge.samples`` reads them, each record a letter.
        format: its format, None to be told by the file.
        ledger: see :class:`FileLedger`.
        read_only: see :class:`FileLedger`.

    Raises:
        SettingsError: there is no such file, or its ledger cannot be used.
    """

    total: int | None = None

    def __init__(
        self,
        file: Path,
        format: Format | None,  # noqa: A002
        ledger: Path | None,
        *,
        read_only: bool,
    ) -> None:
        if not file.is_file():
            raise SettingsError(
                f"{file} is no file: name the file that the letters are in; what was replayed is"
                " told by their places in it"
            )
        self._file = file
        self._format = format
        self._own = FileLedger(file, ledger, read_only=read_only)
        self.ledger: Ledger = self._own

    def __iter__(self) -> Iterator[Found]:
        """Yield the letters."""
        for number, sample in enumerate(read(self._file, self._format), 1):
            letter = _letter(lambda: sample.record)  # noqa: B023 - called at once
            yield Found(Place(0, number, number), f"{self._file}: letter {number}", letter)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._own.close()


class TopicSource:
    """The letters that stand in a topic now.

    Args:
        cluster: its cluster.
        topic: its name.
        ledger: the ledger's name; None for the topic's with ``.replayed``.
        read_only: see :class:`TopicLedger`.

    Raises:
        SettingsError, ReplayError: see :class:`Cluster` and :class:`TopicLedger`.
    """

    def __init__(
        self, cluster: Cluster, topic: str, ledger: str | None, *, read_only: bool
    ) -> None:
        found = cluster.topic(topic)
        self._topic = topic
        self.ledger: Ledger = TopicLedger(
            cluster, found, ledger or f"{topic}.replayed", read_only=read_only
        )
        self._contents = Contents(cluster, found)
        self.total: int | None = self._contents.total

    def __iter__(self) -> Iterator[Found]:
        """Yield the letters."""
        turns: Counter[int] = Counter()
        for part, offset, _, value in self._contents:
            turns[part] += 1
            letter = _letter(lambda: unpack(value or b""))  # noqa: B023 - called at once
            name = f"{self._topic} [{part}] offset {offset}"
            yield Found(Place(part, offset, turns[part]), name, letter)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _letter(record: Callable[[], object]) -> Letter | NotALetter:
    try:
        return letter_of(record())
    except NotALetter as error:
        return error
