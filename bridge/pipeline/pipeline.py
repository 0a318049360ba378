"""Runs packed entries through the filters that match their tag."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import isawaitable
from operator import is_
from typing import Any, Literal, NamedTuple

from msgspec import Raw

from bridge.decoding import array_header, encode, encode_odd
from bridge.errors import NotAnEvent
from bridge.filters import Registry
from bridge.pipeline.chunk import Chunk, Item
from bridge.pipeline.deadletters import Failure, dead_letter
from bridge.pipeline.outcome import Outcome, Stream, merge
from bridge.pipeline.payload import JsonPayload, RecordPayload
from bridge.pipeline.run import Run
from bridge.pipeline.stage import Gather, Stage
from bridge.pipeline.tap import Tap

# Events that go through all steps before the next: their dicts stay in the processor's cache.
# Measured: from 64 to 512 it makes no difference, a chunk of 20,000 at once takes 1.6 times as
# long.
_SLICE = 256
# An async filter waits at the end of each slice for the slowest: with more rounds of events that is
# less.
_ROUNDS = 16
_MOST_TAGS = 1024  # as Fluentd's own cache of matches (event_router.rb, MATCH_CACHE_SIZE)

_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)

Entries = bytes | bytearray | memoryview


class Unencodable(ValueError):
    """A filter put into a record what MessagePack cannot hold."""


class _Plan(NamedTuple):
    """How to run the events of a tag.

    Attributes:
        stages: the filters that match it.
        raw: whether records stay undecoded, because the first filter takes a view.
        keep: whether no filter can change an event.
        batch: whether one takes all events at once.
        size: how many events go through all stages together.
    """

    stages: tuple[Stage, ...]
    raw: bool
    keep: bool
    batch: bool
    size: int


class Pipeline:
    """All filters, ready for chunks.

    Args:
        registry: the filters.
        payload: ``raw`` where the filters see the record, ``json`` where they see a document in it.
        payload_key: the field that holds the document.
        gather: what awaits the filters that are ``async def``; they cannot be run without.

    Raises:
        ValueError: there is such a filter and nothing to await it.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        payload: Literal["raw", "json"] = "raw",
        payload_key: str = "message",
        gather: Gather | None = None,
    ) -> None:
        for one in registry.filters:
            if one.asynchronous and gather is None:
                raise ValueError(f"the filter {one.name} is async def: give the pipeline a gather")
        self._stages = [Stage(one, i, gather) for i, one in enumerate(registry.filters)]
        self._payload = JsonPayload(payload_key) if payload == "json" else RecordPayload()
        self._gather = gather
        self._plans: dict[str, _Plan] = {}

    def chain(self, tag: str) -> tuple[Stage, ...]:
        """Return the filters that match a tag, in order."""
        return self._plan(tag).stages

    def run(
        self,
        tag: str,
        entries: Entries,
        count: int | None,
        *,
        start: int = 0,
        stop: int | None = None,
        attempts: int = 1,
        progress: Callable[[int], None] | None = None,
        taps: Sequence[Tap] = (),
    ) -> Outcome:
        """Run entries through the filters.

        Args:
            tag: their tag.
            entries: packed entries. The outcome may hold views of them.
            count: how many they are said to be: a hint.
            start: the first event to run, counted from 0.
            stop: the event to stop before; None is the end.
            attempts: how many times they have been run, this time included; for dead letters.
            progress: called with the index of each event before it is run alone; not called where a
                filter takes all events at once.
            taps: look into it.

        Raises:
            NotAnEvent: something in the entries is not ``[time, record]``; says which and where.
            Retry: a filter wants all of it to come again.
        """
        plan = self._plan(tag)
        chunk = Chunk(entries, count)
        if start or stop is not None:
            chunk = chunk.part(start, stop)
        if progress is not None and not plan.batch:
            outcomes = []
            for tap in taps:
                tap.begin(chunk.length)
            for index in range(chunk.length):
                progress(start + index)
                part = chunk.part(index, index + 1)
                outcomes.append(self._run(tag, plan, part, attempts, taps))
            return merge(outcomes)
        if plan.batch or not plan.stages:
            return self._run(tag, plan, chunk, attempts, taps)
        for tap in taps:
            tap.begin(-(-(count or 1) // plan.size))
        parts = chunk.slices(plan.size)
        return merge([self._run(tag, plan, part, attempts, taps) for part in parts])

    def reject(  # noqa: PLR0917 - a job's fields in their order
        self,
        tag: str,
        entries: Entries,
        count: int | None,
        index: int,
        error_class: str,
        message: str,
        attempts: int,
        taps: Sequence[Tap] = (),
    ) -> Outcome:
        """Send one event to the error stream without running it.

        Args:
            tag: its tag.
            entries: the entries that it stands in.
            count: how many they are said to be.
            index: which it is.
            error_class: the class of error to name.
            message: what happened.
            attempts: how many times it was run.
            taps: look at it.

        Raises:
            NotAnEvent: it is not there, or is none.
        """
        chunk = Chunk(entries, count).part(index, index + 1)
        if not chunk.length:
            raise NotAnEvent(f"event {index}: there is none, the entries end before it")
        (item,) = chunk.decode_raw()
        failure = Failure(error_class, message, None, None)
        original = chunk.original(item[0])
        for tap in taps:
            tap.take_rejected(tag, original, failure)
        errors = _encode([dead_letter(failure, original, tag, attempts)])
        return Outcome([Stream(f"error.{tag}", errors, 1, error=True)], received=1, errors=1)

    def close(self) -> None:
        """Close the filters that have something to close.

        Raises:
            ExceptionGroup: of what they raised.
        """
        errors: list[Exception] = []
        for stage in self._stages:
            close = stage.filter.close
            if close is None:
                continue
            try:
                closing = close()
                if isawaitable(closing) and self._gather is not None:
                    raised = self._gather(lambda awaitable: awaitable, [closing], 1)[0]
                    if isinstance(raised, Exception):
                        errors.append(raised)
            except Exception as error:  # noqa: BLE001 - the others are to be closed all the same
                errors.append(error)
        if errors:
            raise ExceptionGroup("filters could not be closed", errors)

    def _plan(self, tag: str) -> _Plan:
        plan = self._plans.get(tag)
        if plan is None:
            stages = tuple(stage for stage in self._stages if stage.filter.matches(tag))
            filters = [stage.filter for stage in stages]
            if len(self._plans) >= _MOST_TAGS:
                self._plans.clear()
            plan = self._plans[tag] = _Plan(
                stages,
                raw=bool(stages) and stages[0].filter.kind == "view",
                keep=all(one.predicate for one in filters),
                batch=any(one.batch for one in filters),
                size=max(
                    [_SLICE, *(_ROUNDS * one.concurrency for one in filters if one.asynchronous)]
                ),
            )
        return plan

    def _run(
        self, tag: str, plan: _Plan, chunk: Chunk, attempts: int, taps: Sequence[Tap]
    ) -> Outcome:
        if not plan.stages:
            count = chunk.check()
            _look(taps, tag, chunk, None, {})
            return Outcome(_stream(tag, chunk.entries, count), received=count)
        run = Run(chunk, self._payload, raw=plan.raw)
        opened = items = self._payload.open(chunk, run.fail, raw=plan.raw)
        for stage in plan.stages:
            if not items:
                break
            items = stage.run(run, tag, items)
        outputs = {tag: items}
        if run.diverted:
            self._run_diverted(run, outputs)
        streams: list[Stream] = []
        for other, items in outputs.items():
            same = len(items) == len(chunk.items) and all(map(is_, items, opened))
            if same and (plan.raw or plan.keep):
                streams += _stream(other, chunk.entries, len(items))
            elif plan.keep and not plan.raw:
                streams += _kept(run, other, opened, items)
            else:
                streams += _sealed(run, other, items)
        _look(taps, tag, chunk, run, outputs)
        letters = [
            dead_letter(failure, chunk.original(time), tag, attempts)
            for time, failure in run.failures
        ]
        if letters:
            streams.append(Stream(f"error.{tag}", _encode(letters), len(letters), error=True))
        return Outcome(
            streams,
            received=len(chunk.items),
            dropped=run.dropped,
            errors=len(letters),
            filters=[timing for _, timing in sorted(run.timings.items())],
        )

    def _run_diverted(self, run: Run, outputs: dict[str, list[Item]]) -> None:
        """Run the events that got another tag through what stands after the filter that gave it."""
        while run.diverted:
            place, tag = min(run.diverted)
            items = run.diverted.pop((place, tag))
            for stage in self._plan(tag).stages:
                if stage.index >= place:
                    items = stage.run(run, tag, items)
            outputs.setdefault(tag, []).extend(items)
        for items in outputs.values():
            # As they came, whatever way each took: whoever reads one tag relies on its order.
            items.sort(key=lambda item: run.chunk.index(item[0]))


def _look(taps: Sequence[Tap], *seen: Any) -> None:
    for tap in taps:
        tap.take(*seen)


def _stream(tag: str, entries: Entries, count: int) -> list[Stream]:
    return [Stream(tag, entries, count)] if count else []


def _kept(run: Run, tag: str, opened: list[Item], items: list[Item]) -> list[Stream]:
    """Return those of a chunk's entries that passed predicates, as they came."""
    unchanged = set(map(id, opened))
    if not all(id(item) in unchanged for item in items):
        return _sealed(run, tag, items)  # a filter that is declared -> bool returned something else
    raws = run.chunk.raws()
    return _stream(tag, _encode([raws[run.chunk.index(time)] for time, _ in items]), len(items))


def _sealed(run: Run, tag: str, items: list[Item]) -> list[Stream]:
    """Return what filters made, encoded; what cannot be is for the error stream."""
    packed = run.payload.pack(run.chunk, items)
    if packed is not None:
        return _stream(tag, packed, len(items))
    sealed: list[Any] = run.payload.seal(run.chunk, items, run.fail)
    try:
        return _stream(tag, _encode(sealed), len(sealed))
    except _UNENCODABLE:
        pass
    encoded: list[Raw] = []
    for item in sealed:
        try:
            encoded.append(Raw(encode_odd(item)))
        except _UNENCODABLE as error:
            run.fail(item[0], Unencodable(f"what the filters made cannot be sent: {error}"))
    return _stream(tag, _encode(encoded), len(encoded))


def _encode(items: list[Any]) -> memoryview:
    """Return packed entries."""
    return memoryview(encode(items))[len(array_header(len(items))) :]
