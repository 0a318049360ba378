"""Looks into a run: takes a few of its events, each with what became of it.

Each result carries the time object of the event that it was made from, so which came from which is
known without running anything in another way, let alone twice: a run that is looked into is the
same run.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from bridge.decoding import encode_odd, entry_of
from bridge.decoding.shown import readable, shown, text_of
from bridge.pipeline.chunk import Chunk, Item
from bridge.pipeline.deadletters import Failure, time_text
from bridge.pipeline.run import Run

_MOST_BYTES = 8 << 10  # of a record, and of all results of one together
_MOST_RESULTS = 16

_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)

Entry = tuple[Raw, Raw]


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
        self._skip = 0

    def begin(self, runs: int) -> None:
        """Choose where to take events: in a run picked at random and those after it.

        Args:
            runs: how many the job takes, as far as is known.
        """
        self._skip = 0 if self._errors else random.randrange(max(runs, 1))  # noqa: S311

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
            self.lines.append(msgspec.json.encode({"tag": text_of(tag), "trouble": repr(error)}))

    def _take(
        self, tag: str, chunk: Chunk, run: Run | None, outputs: Mapping[str, list[Item]]
    ) -> None:
        failures: dict[int, list[Failure]] = {}
        for time, failure in run.failures if run else ():
            failures.setdefault(chunk.index(time), []).append(failure)
        among: list[int] | range = list(failures) if self._errors else range(len(chunk.items))
        chosen = random.sample(among, min(self._wanted, len(among)))
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
        before, cut = _event(tag, original, _MOST_BYTES, document)
        after = []
        room = _MOST_BYTES
        for other, entry in results[:_MOST_RESULTS]:
            event, some_cut = _event(other, entry, max(room, 0), document)
            after.append(event)
            room -= len(bytes(entry[1]))
            cut = cut or some_cut
        same = results == [(tag, original)] or (after == [before] and not cut)
        if failures:
            outcome = "error"
        elif not results:
            outcome = "dropped"
        else:
            outcome = "unchanged" if same else "changed"
        line: dict[str, Any] = {**before, "outcome": outcome, "results": after}
        if len(results) > len(after):
            line["results_left_out"] = len(results) - len(after)
        if failures:
            line["errors"] = [
                {
                    "class": failure.error_class,
                    "message": failure.message,
                    "filter": failure.filter,
                    "traceback": failure.traceback,
                }
                for failure in failures[:_MOST_RESULTS]
            ]
        if cut:
            line["truncated"] = True
        self.lines.append(msgspec.json.encode(line))


def _event(tag: str, entry: Entry, most: int, document: str | None) -> tuple[dict[str, Any], bool]:
    """Return an event as JSON can hold it, and whether something of it was left out."""
    time, record = entry
    fields, cut = shown(bytes(record), most)
    if document is not None and isinstance(text := fields.get(document), str):
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            fields[document] = readable(msgspec.json.decode(text))  # as the filters see it
    return {"tag": text_of(tag), "time": time_text(time), "record": fields}, cut


def _sealed(run: Run, made: Iterable[tuple[str, Item]]) -> list[tuple[str, Entry]]:
    """Return results as they leave; those that cannot are among the failures."""
    sealed = []
    for tag, item in made:
        for one in run.payload.seal(run.chunk, [item], lambda *_: None):
            with contextlib.suppress(*_UNENCODABLE):
                sealed.append((tag, entry_of(encode_odd(one))))
    return sealed
