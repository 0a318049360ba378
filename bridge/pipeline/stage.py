"""A filter's place in a pipeline: makes its arguments, calls it, takes its results."""

from __future__ import annotations

import copy
import marshal
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import repeat
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import Raw

from bridge.decoding import event_time_of
from bridge.events import Event
from bridge.filters import Filter
from bridge.pipeline.chunk import Item
from bridge.pipeline.results import NOT_ONE_EVENT, Results, WrongResult
from bridge.pipeline.run import Run


class Gather(Protocol):
    """Awaits a function for each argument, so many at once at most."""

    def __call__(
        self, function: Callable[[Any], Awaitable[Any]], arguments: list[Any], concurrency: int
    ) -> list[Any]:
        """Return a result an argument, or the exception that was raised for it."""


class _Calls(NamedTuple):
    """What to call a filter with.

    Attributes:
        items: the items.
        arguments: an argument an item.
        times: the time in each argument, None where it has none.
    """

    items: list[Item]
    arguments: list[Any]
    times: Iterable[Any]


class Stage:
    """A filter's place in a pipeline.

    Args:
        declared: the filter.
        index: its place.
        gather: what awaits it, if it is to be awaited.
    """

    def __init__(self, declared: Filter, index: int, gather: Gather | None) -> None:
        self.filter = declared
        self.name = declared.name
        self.index = index
        self._function = declared.function
        self._gather = gather
        self._is_plain = (
            declared.kind == "record" and not declared.batch and not declared.asynchronous
        )

    def run(self, run: Run, tag: str, items: list[Item]) -> list[Item]:
        """Return what goes on under the same tag.

        Args:
            run: the run.
            tag: the events' tag.
            items: the events.

        Raises:
            Retry: the filter raised it.
        """
        began = perf_counter()
        results = Results(run, self.filter, self.index, tag)
        if self._is_plain and not (run.raw and any(type(item[1]) is Raw for item in items)):
            self._call_with_records(items, results)
        else:
            calls = self._calls(run, tag, items, results)
            if self.filter.batch:
                self._call_with_all(run, tag, calls, results)
            elif self.filter.asynchronous:
                assert self._gather is not None
                concurrency = self.filter.concurrency
                returned = self._gather(self._function, calls.arguments, concurrency)
                _take_all(calls, returned, results)
            else:
                self._call_with_each(calls, results)
        run.count(
            self.index,
            self.name,
            perf_counter() - began,
            len(items),
            results.dropped,
            results.failed,
        )
        return results.items

    def _call_with_records(self, items: list[Item], results: Results) -> None:
        function = self._function
        append = results.items.append
        dropped = 0
        for item in items:
            record = item[1]
            try:
                result = function(record)
            except NOT_ONE_EVENT:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this event's
                results.fail(item, error)
                continue
            if result is record or result is True:
                append(item)
            elif result is None or result is False:
                dropped += 1
            elif type(result) is dict:
                append((item[0], result))
            else:
                results.take(item, record, result)
        results.dropped += dropped

    def _call_with_each(self, calls: _Calls, results: Results) -> None:
        function = self._function
        append = results.items.append
        dropped = 0
        for item, argument, time in zip(*calls, strict=False):
            try:
                result = function(argument)
            except NOT_ONE_EVENT:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this event's
                results.fail(item, error)
                continue
            if result is True:
                append(item)
            elif result is None or result is False:
                dropped += 1
            else:
                results.take(item, argument, result, time)
        results.dropped += dropped

    def _call_with_all(self, run: Run, tag: str, calls: _Calls, results: Results) -> None:
        if not calls.items:
            return
        before = _snapshot(calls.items)
        returned = self._batch(calls.arguments)
        if not isinstance(returned, Exception):
            _take_all(calls, returned, results)
            return
        if len(calls.items) == 1:
            _take_all(calls, [returned], results)
            return
        # It may have changed records before it raised.
        for item in before():
            alone = self._calls(run, tag, [item], results)
            if alone.items:
                self._call_with_all(run, tag, alone, results)

    def _batch(self, arguments: list[Any]) -> Sequence[Any] | Exception:
        """Return the results, or the exception that the function raised."""
        returned: Any
        if self.filter.asynchronous:
            assert self._gather is not None
            (returned,) = self._gather(self._function, [arguments], 1)
        else:
            try:
                returned = self._function(arguments)
            except Exception as error:  # noqa: BLE001 - see _call_with_all
                returned = error
        if isinstance(returned, NOT_ONE_EVENT):
            raise returned
        if isinstance(returned, Exception):
            return returned
        if isinstance(returned, list | tuple) and len(returned) == len(arguments):
            return returned
        what = f"{type(returned).__qualname__}"
        if isinstance(returned, list | tuple):
            what += f" of {len(returned)}"
        wrong = WrongResult(
            f"it returned a {what} for {len(arguments)} events; @bridge.batch wants a list with"
            " one result an event, None for those to drop"
        )
        return [wrong] * len(arguments)

    def _calls(self, run: Run, tag: str, items: list[Item], results: Results) -> _Calls:
        """Return the calls to make; events that the filter cannot get fail."""
        if self.filter.kind == "view":
            views = run.payload.views(run.chunk, items, self.filter.view)
            if views is not None:
                return _Calls(items, views, repeat(None))
        kept: list[Item] = []
        arguments: list[Any] = []
        for item in items:
            try:
                if self.filter.kind == "view":
                    argument = run.payload.view(run.chunk, item, self.filter.view)
                elif type(item[1]) is Raw:
                    argument = run.payload.decode(run.chunk, item)
                    if not self.filter.predicate:
                        item = (item[0], argument)  # noqa: PLW2901
                else:
                    argument = item[1]
            except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
                results.fail(item, error, ours=True)
                continue
            kept.append(item)
            arguments.append(argument)
        if self.filter.kind != "event":
            return _Calls(kept, arguments, repeat(None))
        times = [event_time_of(item[0]) for item in kept]
        events = [Event(tag, time, record) for time, record in zip(times, arguments, strict=True)]
        return _Calls(kept, events, times)


def _take_all(calls: _Calls, returned: Iterable[Any], results: Results) -> None:
    for item, argument, time, result in zip(*calls, returned, strict=False):
        if isinstance(result, NOT_ONE_EVENT):
            raise result
        if isinstance(result, Exception):
            results.fail(item, result, ours=isinstance(result, WrongResult))
            result.__traceback__ = None  # it refers to the list that it stands in
        else:
            results.take(item, argument, result, time)


def _copy(record: Any) -> Any:
    try:
        return copy.deepcopy(record)
    except Exception:  # noqa: BLE001 - a filter put in what cannot be copied; it fails later
        return record


def _snapshot(items: list[Item]) -> Callable[[], Iterable[Item]]:
    """Return what returns the items as they are now."""
    try:
        # The fastest exact copy there is, of built-in types only.
        dumped = marshal.dumps([None if type(record) is Raw else record for _, record in items])
    except ValueError:
        copied = [(time, _copy(record)) for time, record in items]
        return lambda: copied
    return lambda: [
        item if record is None else (item[0], record)
        for item, record in zip(items, marshal.loads(dumped), strict=True)  # noqa: S302 - ours
    ]
