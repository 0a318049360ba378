"""Case files: what goes in, and what must come out. Their rules are in docs/cases.md."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import yaml

from bridge.errors import LoadError
from bridge.events import EventTime
from bridge.testing.document import Document, line_of

SUFFIX = ".cases.yaml"
EXAMPLE = "as in `cases: [{tag: ad.click, input: {price: 0}, drop: true}]`"
#: When an event is that has no time of its own: a case is to be the same every day.
TIME = EventTime(1_767_225_600)  # 2026-01-01T00:00:00Z

_FILE_KEYS = ("payload", "payload_key", "parameters", "cases")
_INPUT_KEYS = ("name", "tag", "time", "input")
_OUTCOME_KEYS = ("output", "unchanged", "drop", "reject", "retry")
_EVENT_KEYS = frozenset({"tag", "time", "record"})
_REASON_KEYS = ("class", "message", "filter")


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


def find(path: Path) -> list[Path]:
    """Return the case files of a folder and of the folders in it, in the order of their names.

    Folders whose names begin with a dot are left out.

    Args:
        path: the folder, or a file, which is returned whatever its name.

    Raises:
        LoadError: there is no such folder or file.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise LoadError("there is no such folder or file", file=path)
    found = [
        file
        for file in path.rglob(f"*{SUFFIX}")
        if not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    # Those of one folder one after the other.
    return sorted(found, key=lambda file: (file.parent, file.name))


def read(file: Path) -> CaseFile:
    """Return the cases of a file.

    Raises:
        ExceptionGroup: of :class:`LoadError`, one for each mistake in it.
    """
    document = Document(file)
    cases = _file(document)
    if document.mistakes or cases is None:
        raise ExceptionGroup("the cases cannot be read", document.mistakes)
    return cases


def read_all(files: Iterable[Path]) -> list[CaseFile]:
    """Return the cases of several files.

    Raises:
        ExceptionGroup: of :class:`LoadError`, one for each mistake in all of them.
    """
    found: list[CaseFile] = []
    mistakes: list[LoadError] = []
    for file in files:
        try:
            found.append(read(file))
        except ExceptionGroup as group:
            mistakes += group.exceptions  # type: ignore[arg-type]  # as read() says
    if mistakes:
        raise ExceptionGroup("the cases cannot be read", mistakes)
    return found


def _file(document: Document) -> CaseFile | None:
    if document.mistakes:
        return None
    if document.root is None:
        document.mistake(None, f"it is empty: write cases, {EXAMPLE}")
        return None
    keys = document.fields(document.root, _FILE_KEYS, "a case file")
    if keys is None:
        return None
    payload: Literal["raw", "json"] = "raw"
    if (node := keys.get("payload")) is not None:
        match document.value(node):
            case "json":
                payload = "json"
            case "raw":
                pass
            case other:
                document.mistake(node, f"payload is raw or json, not {other!r}")
    key: str | None = "message"
    if (node := keys.get("payload_key")) is not None:
        key = document.text(node, "payload_key")
    parameters = _parameters(document, keys.get("parameters"))
    document.json = payload == "json"
    nodes = keys.get("cases")
    if not isinstance(nodes, yaml.SequenceNode) or not nodes.value:
        document.mistake(nodes or document.root, f"there are no cases: write a list, {EXAMPLE}")
        return None
    cases = [case for node in nodes.value if (case := _Reader(document, node).case())]
    _check_names(document, nodes.value, cases)
    return CaseFile(document.file, payload, key or "", parameters, tuple(cases))


def _parameters(document: Document, node: yaml.Node | None) -> dict[str, dict[str, Any]]:
    if node is None:
        return {}
    # What is copied there from a file of settings is to mean the same.
    document.settings = True
    value = document.value(node)
    document.settings = False
    if isinstance(value, dict) and all(isinstance(one, dict) for one in value.values()):
        return value
    document.mistake(
        node,
        "parameters are a map of filters' names to maps, as in `parameters: {Score: {limit: 1}}`",
    )
    return {}


def _check_names(document: Document, nodes: list[yaml.Node], cases: list[Case]) -> None:
    lines: dict[str, int] = {}
    for case in cases:
        if case.name in lines:
            (node,) = [node for node in nodes if line_of(node) == case.line][:1]
            document.mistake(
                node,
                f"there is a case {case.name!r} already, in line {lines[case.name]}: give this one"
                " another name",
            )
        lines.setdefault(case.name, case.line)


class _Reader:
    """Reads one case."""

    def __init__(self, document: Document, node: yaml.Node) -> None:
        self._document = document
        self._node = node
        self._batch = False
        self._tag = ""
        self._times: frozenset[EventTime] = frozenset()

    def case(self) -> Case | None:
        """Return the case, None if it is none."""
        document, node = self._document, self._node
        keys = document.fields(node, (*_INPUT_KEYS, *_OUTCOME_KEYS), "a case")
        if keys is None:
            return None
        line = line_of(node)
        name: str | None = f"line {line}"
        if "name" in keys:
            name = document.text(keys["name"], "name")
        time = self._time(keys["time"]) if "time" in keys else TIME
        for key in ("tag", "input"):
            if key not in keys:
                document.mistake(node, f"the case has no {key}: say what goes in")
        if "tag" in keys:
            self._tag = document.text(keys["tag"], "tag") or ""
        given = tuple(self._given(keys["input"], time or TIME)) if "input" in keys else ()
        self._times = frozenset(one.time for one in given)
        outcome = self._outcome(keys, given)
        return Case(name or "", document.file, line, self._tag, given, **outcome)

    def _given(self, node: yaml.Node, time: EventTime) -> Iterator[Given]:
        document = self._document
        self._batch = isinstance(node, yaml.SequenceNode)
        if self._batch and not node.value:
            document.mistake(node, "the input is an empty list: a chunk has at least one event")
        for each in node.value if self._batch else [node]:
            keys = _event_keys(each, text=document.json)
            if keys is None:
                yield Given(time, self._record(each, "input"))
                continue
            if "tag" in keys:
                document.mistake(
                    keys["tag"], "an event of the input has no tag of its own: a chunk has one tag"
                )
            own = self._time(keys["time"]) if "time" in keys else time
            yield Given(own or time, self._record(keys["record"], "input"))

    def _record(self, node: yaml.Node, what: str) -> Any:
        document = self._document
        value = document.value(node)
        if isinstance(value, dict):
            return value
        if document.json and what == "input":
            if isinstance(value, str):
                return value
            document.mistake(node, "an event of the input is a map, or a text with payload json")
        elif isinstance(value, str | int | float | list | bytes | None):
            document.mistake(node, f"an event of the {what} is a map: write its record")
        return {}

    def _time(self, node: yaml.Node) -> EventTime | None:
        value = self._document.value(node)
        if isinstance(node, yaml.ScalarNode) and isinstance(value, str | int | float):
            try:
                if isinstance(value, str):
                    time = EventTime.from_isoformat(value if value.endswith("Z") else "")
                else:  # as it stands: a float has no room for nanoseconds
                    time = EventTime(*divmod(int(Decimal(node.value) * 10**9), 10**9))
                time.to_bytes()
                return time  # noqa: TRY300 - it is one if all of these are possible
            except (ValueError, ArithmeticError, struct.error):
                pass
        self._document.mistake(
            node,
            "a time is seconds since 1970, as in 1767225600.5, or a text in UTC, as in"
            " 2026-01-01T00:00:00.5Z",
        )
        return None

    def _outcome(self, keys: dict[str, yaml.Node], given: tuple[Given, ...]) -> dict[str, Any]:
        document = self._document
        said = [key for key in _OUTCOME_KEYS if key in keys]
        if not said:
            document.mistake(
                self._node,
                "the case does not say what must happen: give it output, unchanged: true,"
                " drop: true, reject or retry: true",
            )
        if len(said) > 1 and not (said == ["output", "reject"] and self._batch):
            both = "; output and reject may stand together where the input is a list"
            document.mistake(
                keys[said[1]],
                f"the case has {' and '.join(said)}: keep one{both if 'reject' in said else ''}",
            )
        outcome: dict[str, Any] = {}
        for key in said:
            match key:
                case "output":
                    outcome["wanted"] = tuple(self._wanted(keys[key]))
                case "reject":
                    outcome["reasons"] = self._reasons(keys[key], len(given), said)
                case "unchanged" if document.true(keys[key], key):
                    outcome["unchanged"] = True
                    outcome["wanted"] = tuple(
                        Wanted(self._tag, frozenset([one.time]), one.record, keys[key])
                        for one in given
                    )
                case "retry" | "drop":
                    outcome["retry"] = document.true(keys[key], key) and key == "retry"
        return outcome

    def _wanted(self, node: yaml.Node) -> Iterator[Wanted]:
        if isinstance(node, yaml.SequenceNode) and not node.value:
            self._document.mistake(
                node, "the output is an empty list: if nothing is to come out, write `drop: true`"
            )
        for each in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            keys = _event_keys(each)
            tag, times, record = self._tag, self._times, each
            if keys is not None:
                record = keys["record"]
                if "tag" in keys:
                    tag = self._document.text(keys["tag"], "tag") or ""
                if "time" in keys and (time := self._time(keys["time"])) is not None:
                    times = frozenset([time])
            yield Wanted(tag, times, self._record(record, "output"), record)

    def _reasons(self, node: yaml.Node, events: int, said: list[str]) -> tuple[Reason, ...]:
        if not isinstance(node, yaml.SequenceNode):
            if "output" in said and self._batch:
                self._document.mistake(
                    node, "beside output, reject is a list with one reason for each rejected event"
                )
            return (self._reason(node),) * events
        if not node.value:
            self._document.mistake(node, "reject is an empty list: leave it out, or give reasons")
        return tuple(map(self._reason, node.value))

    def _reason(self, node: yaml.Node) -> Reason:
        document, line = self._document, line_of(node)
        if not isinstance(node, yaml.MappingNode):
            return Reason(line, text=document.text(node, "the reason to reject"))
        if len(node.value) == 1 and " " in (written := str(node.value[0][0].value)):
            # What YAML makes of a text with a colon.
            document.mistake(
                node,
                f"the reason to reject is a map with the key {written!r}: put the whole text"
                " in quotes",
            )
            return Reason(line)
        keys = document.fields(node, _REASON_KEYS, "the reason to reject") or {}
        if not node.value:
            document.mistake(node, f"the reason is empty: give it {', '.join(_REASON_KEYS)}")
        texts = {key: document.text(value, key) for key, value in keys.items()}
        return Reason(
            line,
            error_class=texts.get("class"),
            message=texts.get("message"),
            filter=texts.get("filter"),
        )


def _event_keys(node: yaml.Node, *, text: bool = False) -> dict[str, yaml.Node] | None:
    """Return the values of a map that is an event and not a record, by their keys.

    Args:
        node: the map.
        text: whether the record may be a text.
    """
    if not isinstance(node, yaml.MappingNode):
        return None
    keys = {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}
    record = keys.get("record")
    if (
        len(keys) == len(node.value) > 1
        and keys.keys() <= _EVENT_KEYS
        and (isinstance(record, yaml.MappingNode) or (text and isinstance(record, yaml.ScalarNode)))
    ):
        return keys
    return None
