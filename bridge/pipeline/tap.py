"""Looks into a run: takes a few of its events, each with what became of it.

Each result carries the time object of the event that it was made from, so which came from which is
known without running anything in another way, let alone twice: a run that is looked into is the
same run.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import Raw

from bridge.decoding import encode_odd, entry_of
from bridge.pipeline.chunk import Chunk, Item
from bridge.pipeline.deadletters import Failure
from bridge.pipeline.run import Run
from bridge.pipeline.shown import Shown, shown

_MOST_BYTES = 8 << 10  # of a record, and of all results of one together
_MOST_RESULTS = 16

_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)

Entry = tuple[Raw, Raw]
Outcome = Literal["unchanged", "changed", "dropped", "error"]


class Error(msgspec.Struct, frozen=True):
    """Why an event, or one of the results made of it, went to the error stream.

    Attributes:
        error_class: the exception's class.
        message: what it says.
        filter: the filter's name, if the event came to one.
        traceback: where in the user's file it was raised, if it was.
    """

    error_class: str = msgspec.field(name="class")
    message: str
    filter: str | None
    traceback: str | None


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event and what became of it.

    Attributes:
        tag: its tag as it came.
        time: its time.
        record: its record as it came.
        outcome: what became of it, in a word.
        results: the events that leave in its place, the error stream aside.
        errors: why it went to the error stream.
        results_left_out: how many results more there are.
        truncated: whether long fields were cut.
    """

    tag: Raw
    time: str
    record: Raw
    outcome: Outcome
    results: list[Shown]
    errors: list[Error]
    results_left_out: int = 0
    truncated: bool = False


class Tap:
    """Takes some of a job's events.

    Args:
        wanted: how many at most.
        errors: take only those that go to the error stream.

    Attributes:
        lines: the events taken, each a JSON object in one line.
    """

    def __init__(self, wanted: int, *, errors: bool) -> None:
        self.lines: list[bytes] = []
        self._wanted = wanted
        self._errors = errors
        self._share = wanted
        self._skip = 0

    def begin(self, runs: int) -> None:
        """Choose where to take events, so that they come from anywhere in the job.

        Args:
            runs: how many the job takes, as far as is known.
        """
        if self._errors or runs <= 1:
            return
        self._share = -(-self._wanted // runs)
        taking = -(-self._wanted // self._share)
        self._skip = random.randrange(runs - taking + 1)  # noqa: S311 - no secret

    def take(
        self, tag: str, chunk: Chunk, run: Run | None, outputs: Mapping[str, list[Item]]
    ) -> None:
        """Take events of a run that is done.

        Args:
            tag: their tag.
            chunk: the events.
            run: the run; None where no filter matches the tag.
            outputs: what came out of the filters, by tag.
        """
        if self._skip:
            self._skip -= 1
            return
        try:
            self._take(tag, chunk, run, outputs)
        except Exception as error:  # noqa: BLE001 - a look at an event must not cost the chunk
            self.lines.append(msgspec.json.encode({"trouble": repr(error)}))

    def _take(
        self, tag: str, chunk: Chunk, run: Run | None, outputs: Mapping[str, list[Item]]
    ) -> None:
        failures: dict[int, list[Failure]] = {}
        for time, failure in run.failures if run else ():
            failures.setdefault(chunk.index(time), []).append(failure)
        among: list[int] | range = list(failures) if self._errors else range(len(chunk.items))
        chosen = sorted(random.sample(among, min(self._wanted, self._share, len(among))))
        if not chosen:
            return
        self._wanted -= len(chosen)
        made: dict[int, list[tuple[str, Item]]] = {index: [] for index in chosen}
        for other, items in outputs.items():
            for item in items:
                mine = made.get(chunk.index(item[0]))
                if mine is not None:
                    mine.append((other, item))
        for index in chosen:
            original = chunk.original(chunk.items[index][0])
            results = [(tag, original)] if run is None else _sealed(run, made[index])
            document = run.payload.document if run else None
            self._note(tag, original, results, failures.get(index, ()), document)

    def take_rejected(self, tag: str, original: Entry, failure: Failure) -> None:
        """Take an event that goes to the error stream without being run.

        Args:
            tag: its tag.
            original: its time and record as they came.
            failure: why.
        """
        if self._wanted:
            self._wanted -= 1
            self._note(tag, original, [], [failure], None)

    def _note(
        self,
        tag: str,
        original: Entry,
        results: list[tuple[str, Entry]],
        failures: Sequence[Failure],
        document: str | None,
    ) -> None:
        before, cut = shown(tag, *original, most=_MOST_BYTES, document=document)
        after = []
        room = _MOST_BYTES
        for other, entry in results[:_MOST_RESULTS]:
            result, some = shown(other, *entry, most=max(room, 0), document=document)
            after.append(result)
            room -= len(bytes(entry[1]))
            cut = cut or some
        outcome: Outcome = "changed"
        if failures:
            outcome = "error"
        elif not results:
            outcome = "dropped"
        elif results == [(tag, original)] or (after == [before] and not cut):
            outcome = "unchanged"
        line = Line(
            before.tag,
            before.time,
            before.record,
            outcome,
            after,
            [
                Error(one.error_class, one.message, one.filter, one.traceback)
                for one in failures[:_MOST_RESULTS]
            ],
            results_left_out=len(results) - len(after),
            truncated=cut,
        )
        self.lines.append(msgspec.json.encode(line))


def _sealed(run: Run, made: Iterable[tuple[str, Item]]) -> list[tuple[str, Entry]]:
    """Return results as they leave; those that cannot are among the failures."""
    sealed = []
    for tag, item in made:
        for one in run.payload.seal(run.chunk, [item], lambda *_: None):
            with contextlib.suppress(*_UNENCODABLE):
                sealed.append((tag, entry_of(encode_odd(one))))
    return sealed
