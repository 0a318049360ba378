"""A YAML document that knows the line of each of its values.

Its scalars are JSON's: what goes into a record should be what stands in the file, and YAML 1.1
makes a boolean of the country ``NO``, an octal number of a postal code and a date of a text.
"""

from __future__ import annotations

import base64
import difflib
import math
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, cast

import yaml

from bridge.errors import LoadError

# libyaml's parser, some ten times as fast, is in PyYAML's wheels.
_Base: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_TAG = "tag:yaml.org,2002:"
_PLAIN = frozenset({f"{_TAG}map", f"{_TAG}seq"})
_NUMBER = r"-?(?:0|[1-9][0-9]*)"
_SMALLEST, _BEYOND = -(1 << 63), 1 << 64  # MessagePack's integers
_WHAT_THERE_IS = "a record holds texts, numbers, true, false, null, lists, maps and !!binary"


_SCALARS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "null": lambda _: None,
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "int": int,
    "float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
    "binary": lambda text: base64.b64decode("".join(text.split()), validate=True),
}


class _Loader(_Base):  # type: ignore[misc, valid-type]
    """Resolves plain scalars as JSON does; what is none of these is a text."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - PyYAML's own


for _name, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", _NUMBER, "-0123456789"),
    ("float", rf"{_NUMBER}(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
    ("merge", "<<", "<"),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"(?:{_pattern})$"), _first)


class Document:
    """A file, and the mistakes found in it.

    The methods add to :attr:`mistakes` and go on, so that all are found at once.

    Args:
        file: the file.

    Attributes:
        file: the file.
        root: its document, None where there is none.
        mistakes: what is wrong, each with its line.
        json: whether its values are to be those that JSON has, not only those of MessagePack.
        settings: whether its values are what they would be in a file of settings, YAML 1.1.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.mistakes: list[LoadError] = []
        self.json = False
        self.settings = False
        self.root: yaml.Node | None = None
        self._within: list[int] = []
        try:
            self.root = yaml.compose(file.read_bytes(), _Loader)
        except OSError as error:
            self.mistake(None, f"cannot be read: {error.strerror}")
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            said = ", ".join(part for part in (error.context, error.problem) if part)
            colon = "mapping values are not allowed" in said
            advice = "put a text that holds `: ` in quotes" if colon else "correct this line"
            self._add(f"it is not YAML: {said}; {advice}", mark.line + 1 if mark else 0)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            first, *_ = str(error).splitlines()
            self.mistake(None, f"it is not YAML: {first}")

    def mistake(self, node: yaml.Node | None, message: str) -> None:
        """Add a mistake.

        Args:
            node: where it is; None for the whole file.
            message: what is wrong and what to do about it.
        """
        self._add(message, 0 if node is None else line_of(node))

    def fields(
        self, node: yaml.Node | None, known: Collection[str], what: str
    ) -> dict[str, yaml.Node] | None:
        """Return a map's values by their keys, None if it is no map.

        Args:
            node: the map.
            known: the keys that it may have.
            what: what it is, for messages, as in ``a case``.
        """
        if not isinstance(node, yaml.MappingNode):
            self.mistake(node, f"{what} is a map with the keys {', '.join(known)}")
            return None
        found: dict[str, yaml.Node] = {}
        for key, value in self._pairs(node):
            name = key.value
            if name in known:
                found[name] = value
                continue
            near = difflib.get_close_matches(name, known, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"its keys are {', '.join(known)}"
            self.mistake(key, f"{what} has no key {name!r}; {advice}")
        return found

    def text(self, node: yaml.Node, what: str) -> str | None:
        """Return a text, None if it is something else or empty."""
        value = self.value(node)
        if isinstance(value, str) and value:
            return value
        if value is not _MISTAKEN:
            quotes = "; put it in quotes" if isinstance(node, yaml.ScalarNode) and value else ""
            self.mistake(node, f"{what} is to be a text, not {_kind_of(node, value)}{quotes}")
        return None

    def true(self, node: yaml.Node, what: str) -> bool:
        """Return whether it is ``true``, which is all that it may be."""
        if self.value(node) is True:
            return True
        self.mistake(node, f"{what} is true or it is not there: write `{what}: true`")
        return False

    def value(self, node: yaml.Node) -> Any:
        """Return a value as JSON and MessagePack have it."""
        if id(node) in self._within:
            self.mistake(node, "it holds itself by an alias: a record cannot")
            return _MISTAKEN
        self._within.append(id(node))
        try:
            if isinstance(node, yaml.ScalarNode):
                return self._scalar(node)
            if not isinstance(node, yaml.MappingNode | yaml.SequenceNode) or node.tag not in _PLAIN:
                self.mistake(node, f"the type {_shown(node.tag)} is unknown: {_WHAT_THERE_IS}")
                return _MISTAKEN
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item) for item in node.value]
            return {key.value: self.value(one) for key, one in self._pairs(node)}
        finally:
            self._within.pop()

    def _add(self, message: str, line: int) -> None:
        one = LoadError(message, file=self.file, line=line)
        # An alias has the mistakes of what it stands for again.
        if str(one) not in map(str, self.mistakes):
            self.mistakes.append(one)

    def _pairs(self, node: yaml.MappingNode) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
        """Return keys, which are texts, and values; those merged with ``<<`` first."""
        own: dict[str, tuple[yaml.ScalarNode, yaml.Node]] = {}
        merged: dict[str, tuple[yaml.ScalarNode, yaml.Node]] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.mistake(key, "a key is to be a text, not a list or a map")
            elif key.tag == f"{_TAG}merge":
                self._merge(value, merged)
            elif key.value in own:
                first = line_of(own[key.value][0])
                self.mistake(
                    key, f"the key {key.value!r} is there already, in line {first}: remove one"
                )
            else:
                own[key.value] = key, value
        yield from (merged | own).values()

    def _merge(self, node: yaml.Node, merged: dict[str, tuple[yaml.ScalarNode, yaml.Node]]) -> None:
        if id(node) in self._within:
            self.mistake(node, "it holds itself by an alias: a record cannot")
            return
        self._within.append(id(node))
        if isinstance(node, yaml.MappingNode):
            for key, value in self._pairs(node):
                merged.setdefault(key.value, (key, value))
        elif isinstance(node, yaml.SequenceNode):
            for each in node.value:
                self._merge(each, merged)
        else:
            self.mistake(node, "<< takes a map, or a list of maps, as in `<<: *base`")
        self._within.pop()

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text = cast("str", node.value)
        kind = node.tag.removeprefix(_TAG)
        if self.settings and not node.style and kind in _SCALARS and kind != "binary":
            return yaml.safe_load(text)
        if kind not in _SCALARS:
            self.mistake(node, f"the type {_shown(node.tag)} is unknown: {_WHAT_THERE_IS}")
            return _MISTAKEN
        try:
            value = _SCALARS[kind](text)
        except (KeyError, ValueError):
            self.mistake(node, f"{text!r} is no {_shown(node.tag)}")
            return _MISTAKEN
        if type(value) is int and not _SMALLEST <= value < _BEYOND:
            wrong = f"{value} has more than 64 bits, which no record holds: put a text in quotes"
        elif self.json and type(value) is float and not math.isfinite(value):
            wrong = f"{text} is no number to JSON, and the payload is json: write another, or null"
        elif self.json and type(value) is bytes:
            wrong = "JSON has no !!binary, and the payload is json: write a text"
        else:
            return value
        self.mistake(node, wrong)
        return _MISTAKEN


class _Mistaken:
    """Stands for a value that is a mistake."""


_MISTAKEN = _Mistaken()


def line_of(node: yaml.Node) -> int:
    """Return a node's line, counted from 1."""
    return int(node.start_mark.line) + 1


def line_at(node: yaml.Node, path: Collection[str | int]) -> int | None:
    """Return the line of a value below a node, None where it is not in the file.

    Args:
        node: where the path begins.
        path: keys and indices.
    """
    line: int | None = line_of(node)
    for step in path:
        below: yaml.Node | None = None
        if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            below = node.value[step] if step < len(node.value) else None
            line = None if below is None else line_of(below)
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == step:
                    below, line = value, line_of(key)
        if below is None:
            return None
        node = below
    return line


def _kind_of(node: yaml.Node, value: Any) -> str:
    if isinstance(node, yaml.ScalarNode):
        return "nothing" if value in {None, ""} else str(node.value)
    return "a map" if isinstance(node, yaml.MappingNode) else "a list"


def _shown(tag: str) -> str:
    return f"!!{tag.removeprefix(_TAG)}" if tag.startswith(_TAG) else tag
