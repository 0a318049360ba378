"""What there is to say about filters and settings before they run."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from pydantic import ValidationError

from bridge import loading
from bridge.errors import LoadError, SettingsError
from bridge.filters import Filter, Registry
from bridge.pipeline import Pipeline
from bridge.settings import Settings, catalogue
from bridge.settings.sources import from_all, nested
from bridge.workers.process import Gatherer


class Applied(NamedTuple):
    """A filter as people read about it.

    Attributes:
        order: its place among all, from 1.
        tags: its tag pattern.
        filter: its name.
        takes: what it gets: the record, an Event, or a view with its fields.
        gives: its return annotation, - where there is none.
        runs: whether it is a function or a class, with what parameters, async, a batch.
        where: its file and line.
    """

    order: int
    tags: str
    filter: str
    takes: str
    gives: str
    runs: str
    where: str


def lenient(argv: Sequence[str]) -> tuple[Settings | None, SettingsError | None]:
    """Return the settings, and what is wrong with them.

    Where only values of other groups are wrong the settings are the defaults but for the filters'
    group, so that the filters can be looked at all the same; None where it is not known what is
    meant.

    Args:
        argv: as for :meth:`Settings.load`.
    """
    try:
        return Settings.load(argv), None
    except SettingsError as error:
        problems: list[str] = []
        given = from_all(argv, os.environ, catalogue(Settings), problems)
        if problems:
            return None, error
        try:
            filters = nested(given).get("filters", {})
            return Settings.model_validate({"filters": filters}), error
        except ValidationError:
            return None, error


def load(settings: Settings) -> Registry:
    """Load the filters as a worker does, and close them again.

    What they print goes to stderr.

    Raises:
        ExceptionGroup: of :class:`LoadError`, one for each mistake.
    """
    with contextlib.redirect_stdout(sys.stderr):
        registry = loading.load(settings.filters.path, settings.filters.parameters)
        mistakes = []
        gather = Gatherer()
        for one in registry.filters:
            try:
                Pipeline(Registry((one,), registry.folder), gather=gather).close()
            except ExceptionGroup as group:
                mistakes += [
                    LoadError(
                        f"{one.name}: its close raised {type(error).__qualname__}: {error};"
                        " correct it there, or catch it",
                        file=one.file,
                        line=one.line,
                    )
                    for error in group.exceptions
                ]
        gather.close()
    if mistakes:
        raise ExceptionGroup("the filters cannot be closed", mistakes)
    return registry


def applied(registry: Registry, settings: Settings) -> list[tuple[Filter, Applied]]:
    """Return the filters in the order in which they apply, with what people read about each.

    Args:
        registry: the filters.
        settings: what they were loaded with.
    """
    shown = {each.setting.name: each.value for each in settings.show()}  # secrets are masked there
    parameters = shown["filters.parameters"]
    return [
        (
            one,
            Applied(
                order,
                " ".join(one.pattern.split()),
                one.name,
                _takes(one),
                _gives(one),
                _runs(one, parameters.get(one.name, {})),
                f"{_relative(one.file)}:{one.line}",
            ),
        )
        for order, one in enumerate(registry.filters, 1)
    ]


def _takes(one: Filter) -> str:
    match one.kind:
        case "record":
            what = "dict"
        case "event":
            what = "Event"
        case _:
            what = _view(one.view)
    return f"list[{what}]" if one.batch else what


def _view(view: Any) -> str:
    kind = typing.get_origin(view) or view
    types = typing.get_type_hints(kind)
    info = msgspec.inspect.type_info(view)
    fields = ", ".join(
        f"{each.encode_name}: {_text(types[each.name])}" + ("" if each.required else " = ...")
        for each in getattr(info, "fields", ())
    )
    return f"{kind.__name__}({fields})"


def _gives(one: Filter) -> str:
    function = one.function if inspect.isfunction(one.function) else type(one.function).__call__
    annotation = inspect.signature(function).return_annotation
    if annotation is inspect.Signature.empty:
        return "-"
    return annotation if isinstance(annotation, str) else _text(annotation)


def _text(annotation: Any) -> str:
    return inspect.formatannotation(annotation).replace("typing.", "")


def _runs(one: Filter, parameters: Mapping[str, Any]) -> str:
    if inspect.isfunction(one.function):
        what = "function"
    else:
        given = ", ".join(f"{name}={_literal(value)}" for name, value in parameters.items())
        what = f"class {type(one.function).__name__}({given})"
    if one.batch:
        what = f"batch {what}"
    return f"async {what}, {one.concurrency} at a time" if one.asynchronous else what


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _relative(file: Path) -> Path:
    here = Path.cwd()
    return file.relative_to(here) if file.is_relative_to(here) else file
