"""The decorators: they note what they stand on, and return it unchanged."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Declaration:
    """A decorator and what it stands on, not looked at yet.

    Attributes:
        target: the function or class.
        pattern: what stands in the decorator's parentheses; the target itself where they are
            missing.
        name: the name given, if any.
        concurrency: the concurrency given, if any.
        batch: whether it is ``@bridge.batch``.
        file: the file that it stands in.
        line: the decorator's line.
    """

    target: Any
    pattern: Any
    name: str | None
    concurrency: int | None
    batch: bool
    file: Path
    line: int


_declared: ContextVar[list[Declaration] | None] = ContextVar("_declared", default=None)


@contextlib.contextmanager
def declaring() -> Iterator[list[Declaration]]:
    """Collect what is declared meanwhile, in its order."""
    declared: list[Declaration] = []
    token = _declared.set(declared)
    try:
        yield declared
    finally:
        _declared.reset(token)


def filter(  # noqa: A001 - Fluentd's word, and read as bridge.filter
    pattern: str, /, *, name: str | None = None, concurrency: int | None = None
) -> Callable[[Function], Function]:
    """Apply a function, or an instance of a class, to each event whose tag matches.

    The annotation of the function's first parameter says what it takes: ``dict`` (or none) the
    record, :class:`bridge.Event` the tag, time and record, a :class:`msgspec.Struct`, dataclass or
    TypedDict a view of the record in which only the declared fields are decoded.

    It returns None to drop the event, a dict as the new record (the same one, changed in place, is
    the fastest), a :class:`bridge.Event` for another tag or time, several of these in a list or
    from a generator, a view whose fields are laid over the record, or a predicate's True and False.
    Where all filters of a tag are declared ``-> bool``, what passes leaves byte for byte as it
    came; otherwise a 32-bit float becomes a 64-bit one, and of a key that came twice the last
    stays.

    ``async def`` is awaited with bounded concurrency, the events keeping their order. A class is
    instantiated once a worker, with the parameters that the settings hold under the filter's name.

    Args:
        pattern: Fluentd's tag patterns, white space between them: ``ad.** web.{click,view}``.
        name: how the filter is called in settings, metrics and dead letters; its own name by
            default.
        concurrency: how many events an ``async def`` has under way at most; 64 by default.

    Returns:
        A decorator that returns what it stands on unchanged, so that a test calls that directly.
    """
    return _decorator(pattern, name=name, concurrency=concurrency, batch=False)


def batch(pattern: str, /, *, name: str | None = None) -> Callable[[Function], Function]:
    """Apply a function, or an instance of a class, to all events of a chunk at once.

    As :func:`filter`, but it takes a list (``list[dict]``, ``list[Event]``, a list of views) and
    returns a list of the same length, whose items are what a filter would return for the event in
    that place. If it raises, it is called again with each event alone, so that only those at fault
    go to the error stream; changes that it made to records before it raised are undone. Events that
    got their tag from another filter may come in several lists.

    Args:
        pattern: Fluentd's tag patterns, white space between them.
        name: how the filter is called in settings, metrics and dead letters; its own name by
            default.

    Returns:
        A decorator that returns what it stands on unchanged.
    """
    return _decorator(pattern, name=name, concurrency=None, batch=True)


def _decorator(
    pattern: Any, *, name: str | None, concurrency: int | None, batch: bool
) -> Callable[[Function], Function]:
    frame = inspect.currentframe()
    for _ in range(2):  # this function, the decorator
        frame = frame.f_back if frame else None
    file = Path(frame.f_code.co_filename) if frame else Path()
    line = frame.f_lineno if frame else 0

    def declare(target: Function) -> Function:
        declared = _declared.get()
        if declared is not None:
            declared.append(Declaration(target, pattern, name, concurrency, batch, file, line))
        return target

    # Without parentheses the decorator gets the function itself; whoever loads the file is told.
    return declare if isinstance(pattern, str) else declare(pattern)
