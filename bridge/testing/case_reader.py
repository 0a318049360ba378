"""Reads one case of a case file. The rules are in docs/cases.md."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import yaml

from bridge.events import EventTime
from bridge.testing.case import TIME, Case, Given, Reason, Wanted
from bridge.testing.document import Document, line_of

INPUT_KEYS = ("name", "tag", "time", "input")
OUTCOME_KEYS = ("output", "unchanged", "drop", "reject", "retry")
_EVENT_KEYS = frozenset({"tag", "time", "record"})
_REASON_KEYS = ("class", "message", "filter")


class CaseReader:
    """Reads one case.

    Args:
        document: the file, which takes the mistakes.
        node: where the case stands in it.
    """

    def __init__(self, document: Document, node: yaml.Node) -> None:
        self._document = document
        self._node = node
        self._batch = False
        self._tag = ""
        self._times: frozenset[EventTime] = frozenset()

    def case(self) -> Case | None:
        """Return the case, None if it is none."""
        document, node = self._document, self._node
        keys = document.fields(node, (*INPUT_KEYS, *OUTCOME_KEYS), "a case")
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
        said = [key for key in OUTCOME_KEYS if key in keys]
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
