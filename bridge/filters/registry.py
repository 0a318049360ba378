"""The filters that were loaded."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge import tags
from bridge.errors import LoadError
from bridge.filters.declarations import Declaration
from bridge.filters.signatures import Kind, Signature, signature_of

__all__ = ["Filter", "Kind", "Registry", "resolve", "unknown_parameters"]

_CONCURRENCY = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """One filter, ready to be called.

    Attributes:
        name: its name in settings, metrics and dead letters.
        pattern: its tag pattern as written.
        matches: whether a tag matches that.
        function: what to call with the argument.
        kind: what the argument is: the record, an Event or a view of the record.
        view: the type of the view, None for other kinds.
        batch: whether it takes all events of a chunk.
        asynchronous: whether it is to be awaited.
        concurrency: how many events may be under way at once, if it is.
        predicate: whether it is declared to return bool, so that it cannot change an event.
        file: the file that it stands in.
        line: the line of its decorator.
        close: what to call when the worker ends.
    """

    name: str
    pattern: str
    matches: Callable[[str], bool]
    function: Callable[[Any], Any]
    kind: Kind
    view: Any
    batch: bool
    asynchronous: bool
    concurrency: int
    predicate: bool
    file: Path
    line: int
    close: Callable[[], Any] | None = None


@dataclass(frozen=True, slots=True)
class Registry:
    """All filters in the order in which they apply.

    Attributes:
        filters: the filters.
        folder: the folder that their files stand in.
    """

    filters: tuple[Filter, ...]
    folder: Path


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A declaration found good, not instantiated yet."""

    declaration: Declaration
    name: str
    matches: Callable[[str], bool]
    signature: Signature
    parameters: Mapping[str, Any]

    def build(self) -> Filter:
        """Return the filter; a class is instantiated, and may raise anything."""
        declared, signature = self.declaration, self.signature
        function, close = declared.target, None
        if inspect.isclass(function):
            function = function(**self.parameters)
            close = getattr(function, "close", None)
        return Filter(
            name=self.name,
            pattern=declared.pattern,
            matches=self.matches,
            function=function,
            kind=signature.kind,
            view=signature.view,
            batch=declared.batch,
            asynchronous=signature.asynchronous,
            concurrency=declared.concurrency or _CONCURRENCY,
            predicate=signature.predicate,
            file=declared.file,
            line=declared.line,
            close=close,
        )


def resolve(
    declarations: list[Declaration], parameters: Mapping[str, Mapping[str, Any]]
) -> tuple[list[Blueprint], list[LoadError]]:
    """Look at declarations, and return what can be built of them and what is wrong with the others.

    Args:
        declarations: in their order.
        parameters: parameters of classes, by the filter's name.
    """
    blueprints: list[Blueprint] = []
    mistakes: list[LoadError] = []
    taken: dict[str, Declaration] = {}
    for declared in declarations:
        decorator = "@bridge.batch" if declared.batch else "@bridge.filter"
        try:
            name = _name_of(declared, decorator)
        except (TypeError, ValueError) as error:
            mistakes.append(LoadError(str(error), file=declared.file, line=declared.line))
            continue
        first = taken.setdefault(name, declared)
        try:
            blueprint = _blueprint(declared, name, parameters.get(name, {}))
        except (TypeError, ValueError) as error:
            mistake = str(error)
        else:
            if first is declared:
                blueprints.append(blueprint)
                continue
            mistake = (
                f"there is a filter of this name already, in {first.file}:{first.line}; give this"
                f' one another, as in {decorator}({declared.pattern!r}, name="...")'
            )
        mistakes.append(LoadError(f"{name}: {mistake}", file=declared.file, line=declared.line))
    return blueprints, mistakes


def unknown_parameters(
    names: list[str], parameters: Mapping[str, Mapping[str, Any]], folder: Path
) -> list[LoadError]:
    """Return a mistake for each parameter group that is for no filter."""
    mistakes = []
    for name in parameters:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"the filters are {', '.join(names)}"
            mistakes.append(
                LoadError(
                    f"there are parameters for {name!r}, but no such filter; {advice}", file=folder
                )
            )
    return mistakes


def _name_of(declared: Declaration, decorator: str) -> str:
    if not isinstance(declared.pattern, str):
        raise TypeError(
            f'{decorator} needs a tag pattern in parentheses, as in {decorator}("ad.**");'
            ' "**" is for every tag'
        )
    if not inspect.isfunction(declared.target) and not inspect.isclass(declared.target):
        raise TypeError(
            f"{decorator} stands on a {type(declared.target).__qualname__}: put it on a function"
            " or a class (below @staticmethod and the like)"
        )
    name = declared.target.__name__ if declared.name is None else declared.name
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ValueError(
            f"the filter's name {name!r} is not a name: give it a text that can be printed"
        )
    return name


def _blueprint(declared: Declaration, name: str, parameters: Mapping[str, Any]) -> Blueprint:
    matches = tags.matcher(declared.pattern)
    target = declared.target
    if inspect.isclass(target):
        _check_parameters(target, name, parameters)
        if not any("__call__" in vars(base) for base in target.__mro__):
            raise TypeError(
                "the class has no __call__(self, record): that is the method that gets the events"
            )
        signature = signature_of(target.__call__, batch=declared.batch, method=True)
    else:
        if parameters:
            raise TypeError(
                "it is a function, and the settings have parameters for it"
                f" ({', '.join(parameters)}): make it a class whose __init__ takes them, or remove"
                " them"
            )
        signature = signature_of(target, batch=declared.batch, method=False)
    concurrency = declared.concurrency
    if concurrency is not None:
        if not signature.asynchronous:
            raise TypeError("concurrency is for async def: make it one, or remove concurrency")
        if not isinstance(concurrency, int) or concurrency < 1:
            raise ValueError(f"concurrency is {concurrency!r}: it must be a whole number above 0")
    return Blueprint(declared, name, matches, signature, parameters)


def _check_parameters(target: type, name: str, parameters: Mapping[str, Any]) -> None:
    signature = inspect.signature(target)
    try:
        signature.bind(**parameters)
    except TypeError as error:
        known = list(signature.parameters)
        near = [
            f"did you mean {match[0]!r} for {one!r}?"
            for one in parameters
            if one not in known and (match := difflib.get_close_matches(one, known, n=1))
        ]
        takes = ", ".join(map(str, signature.parameters.values())) or "nothing"
        advice = " ".join(near) or f"set them under the filter's name {name!r}"
        raise TypeError(
            f"its parameters in the settings do not fit its __init__: {error}; it takes {takes};"
            f" {advice}"
        ) from None
