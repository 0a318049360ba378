"""What a filter returned, made into items."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any, get_origin

import msgspec
from msgspec import Raw

from bridge.decoding import raw_of_time
from bridge.errors import Retry
from bridge.events import Event, EventTime
from bridge.filters import Filter
from bridge.pipeline.chunk import Item
from bridge.pipeline.run import Run

#: What is not about one event: the chunk comes again, or the worker cannot go on.
NOT_ONE_EVENT = (Retry, MemoryError)


class Results:
    """Takes the results of one stage for the events of one tag.

    Args:
        run: the run.
        declared: the filter.
        index: the stage's index.
        tag: the tag.

    Attributes:
        items: what goes on under the same tag.
        dropped: how many events were dropped.
        failed: how many failed.
    """

    def __init__(self, run: Run, declared: Filter, index: int, tag: str) -> None:
        self.items: list[Item] = []
        self.dropped = 0
        self.failed = 0
        self._run = run
        self._filter = declared
        self._index = index
        self._tag = tag
        self._view = get_origin(declared.view) or declared.view
        # A TypedDict has no instances: only the very dict that was given is known to be a view.
        self._instances = isinstance(self._view, type) and (
            issubclass(self._view, msgspec.Struct) or dataclasses.is_dataclass(self._view)
        )

    def fail(self, item: Item, error: BaseException, *, ours: bool = False) -> None:
        """Send an item's event to the error stream.

        Args:
            item: the item.
            error: why.
            ours: whether it was raised before or after the filter, not in it.
        """
        self.failed += 1
        self._run.fail(item[0], error, self._filter.name, None if ours else self._filter.file)

    def take(
        self, item: Item, argument: Any, result: Any, time: EventTime | int | None = None
    ) -> None:
        """Take a result.

        Args:
            item: the item that the argument was made of.
            argument: what the filter got.
            result: what it returned.
            time: the event's time as the filter got it, if it got it.
        """
        if result is True or result is item[1]:
            self.items.append(item)
        elif result is None or result is False:
            self.dropped += 1
        elif (
            result is argument
            and type(result) is Event
            and result.time is time
            and result.record is item[1]
            and result.tag == self._tag
        ):
            self.items.append(item)
        else:
            self._make(item, argument, result, time)

    def _make(self, item: Item, argument: Any, result: Any, time: EventTime | int | None) -> None:
        try:
            if isinstance(result, list | tuple | Iterator):
                made = [self._one(item, argument, one, time, result) for one in result]
            else:
                made = [self._one(item, argument, result, time, None)]
        except NOT_ONE_EVENT:
            raise
        except WrongResult as error:
            self.fail(item, error, ours=True)
            return
        except Exception as error:  # noqa: BLE001 - a generator is the user's code
            self.fail(item, error)
            return
        if not made:
            self.dropped += 1
        for tag, new in made:
            if tag == self._tag:
                self.items.append(new)
            else:
                self._run.divert(self._index + 1, tag, new)

    def _one(
        self, item: Item, argument: Any, result: Any, time: EventTime | int | None, of: Any
    ) -> tuple[str, Item]:
        if isinstance(result, dict):
            if result is argument and self._view is not None:
                return self._tag, (item[0], self._merged(item, result))
            return self._tag, (item[0], result)
        if isinstance(result, Event):
            return self._event(item, result, time)
        if self._instances and isinstance(result, self._view):
            return self._tag, (item[0], self._merged(item, result))
        raise WrongResult(_complaint(result, of))

    def _event(self, item: Item, event: Event, time: EventTime | int | None) -> tuple[str, Item]:
        raw, record = item
        if not isinstance(event.tag, str) or not event.tag:
            raise WrongResult(f"it returned an Event whose tag is {event.tag!r}: a tag is a text")
        if not isinstance(event.record, dict):
            raise WrongResult(
                f"it returned an Event whose record is a {type(event.record).__qualname__}: a"
                " record is a dict"
            )
        try:
            event.tag.encode("utf-8", "surrogateescape")
            new = raw if event.time is time else raw_of_time(event.time)
        except (TypeError, ValueError) as error:
            raise WrongResult(f"it returned an Event that cannot be sent: {error}") from None
        if new != raw:
            self._run.chunk.move(raw, new)
            raw = new
        if raw is item[0] and event.record is record:
            return event.tag, item
        return event.tag, (raw, event.record)

    def _merged(self, item: Item, view: Any) -> dict[Any, Any]:
        payload = self._run.payload
        record = item[1]
        if type(record) is Raw:
            record = payload.decode(self._run.chunk, item)
        return {**record, **payload.fields(view)}


class WrongResult(TypeError):
    """A filter returned what is no result."""


def _complaint(result: Any, of: Any) -> str:
    what = type(result).__qualname__
    if inspect.iscoroutine(result):
        result.close()  # else Python warns that it was never awaited
        return "it returned a coroutine: declare the filter itself with async def"
    where = "" if of is None else f" in a {type(of).__qualname__}"
    return (
        f"it returned a {what}{where}; a filter returns None, True or False, a dict, a"
        " bridge.Event, its view, or a list of dicts, Events or views"
    )
