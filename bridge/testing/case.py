"""A case: what goes in, and what must come out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from bridge.events import EventTime

#: When an event is that has no time of its own: a case is to be the same every day.
TIME = EventTime(1_767_225_600)  # 2026-01-01T00:00:00Z


@dataclass(frozen=True, slots=True)
class Given:
    """An event that goes in.

    Attributes:
        time: its time.
        record: its record; with payload json the document, or the text in its place.
    """

    time: EventTime
    record: Any


@dataclass(frozen=True, slots=True)
class Wanted:
    """An event that must come out.

    Attributes:
        tag: its tag.
        times: its time is one of these.
        record: its record, or document.
        node: where the record stands.
    """

    tag: str
    times: frozenset[EventTime]
    record: Any
    node: yaml.Node


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an event must go to the error stream.

    Attributes:
        line: where it stands.
        text: what the reason holds; None if that does not matter. Likewise:
        error_class: the exception's class.
        message: what its message holds.
        filter: the filter's name.
    """

    line: int
    text: str | None = None
    error_class: str | None = None
    message: str | None = None
    filter: str | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One case.

    Attributes:
        name: its name.
        file: the file that it stands in.
        line: its line.
        tag: the tag of what goes in.
        given: what goes in.
        wanted: what must come out.
        reasons: why events must be rejected, one for each of them.
        retry: whether a filter must raise Retry.
        unchanged: whether ``wanted`` is the input, and not written out.
    """

    name: str
    file: Path
    line: int
    tag: str
    given: tuple[Given, ...]
    wanted: tuple[Wanted, ...] = ()
    reasons: tuple[Reason, ...] = ()
    retry: bool = False
    unchanged: bool = False


@dataclass(frozen=True, slots=True)
class CaseFile:
    """A file of cases.

    Attributes:
        file: the file.
        payload: what filters see of a record.
        payload_key: the field of the document.
        parameters: of filters that are classes.
        cases: the cases.
    """

    file: Path
    payload: Literal["raw", "json"] = "raw"
    payload_key: str = "message"
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cases: tuple[Case, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder of the filters."""
        return self.file.parent
