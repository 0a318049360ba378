"""What the models in :mod:`.groups` say about each setting, as plain words."""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ByteSize, SecretStr
from pydantic.fields import FieldInfo

PREFIX = "FLUENT_BRIDGE_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"
CONFIG_FLAG = "--config"
_SEPARATOR = re.compile(r"\.|__|--")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        name: the dotted name, as in ``listen.port``.
        meaning: what it is for.
        unit: ``seconds``, ``bytes`` or nothing.
        default: the default as plain data, as JSON has it.
        allowed: which values can be used, in words.
        secret: its value is never shown.
        depth: how many levels of the user's own keys it has: 0 for all but mappings.
        typed: the values at that depth have a type; otherwise YAML tells.
    """

    name: str
    meaning: str
    unit: str
    default: Any
    allowed: str
    secret: bool
    depth: int
    typed: bool

    @property
    def path(self) -> tuple[str, str]:
        """Return the name's two parts."""
        group, _, key = self.name.partition(".")
        return group, key

    @property
    def flag(self) -> str:
        """Return the flag that sets it."""
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        """Return the environment variable that sets it."""
        return PREFIX + self.name.upper().replace(".", "__")

    def text(self, value: Any) -> str:
        """Return a value as people read it, with its unit."""
        if value is None or value == {}:
            return "-"
        if self.unit == "bytes":
            return ByteSize(value).human_readable().replace(".0", "")
        if self.unit == "seconds":
            return f"{value:g} s"
        return value if isinstance(value, str) else json.dumps(value)


@functools.cache
def catalogue(model: type[BaseModel]) -> dict[str, Setting]:
    """Return every setting of a model of groups, by its dotted name."""
    settings = {}
    for group, field in model.model_fields.items():
        kind = field.annotation
        assert isinstance(kind, type)
        assert issubclass(kind, BaseModel)
        schemas = kind.model_json_schema()["properties"]
        defaults = kind().model_dump(mode="json")
        for key, each in kind.model_fields.items():
            name = f"{group}.{key}"
            settings[name] = _setting(name, each, schemas[key], defaults[key])
    return settings


def nearest(name: str, names: Collection[str]) -> str:
    """Return the name that was probably meant, or nothing.

    The right key in the wrong group, or in none, is the commonest mistake, so a name with the same
    last part goes before one that merely looks alike.
    """
    *group, last = _SEPARATOR.split(name)
    same = [each for each in names if _SEPARATOR.split(each)[-1] == last]
    if same:
        return max(same, key=lambda each: _likeness(_SEPARATOR.split(each)[:-1], group))
    return next(iter(difflib.get_close_matches(name, names, n=1)), "")


def _likeness(one: list[str], other: list[str]) -> float:
    return difflib.SequenceMatcher(None, "".join(one), "".join(other)).ratio()


def _setting(name: str, field: FieldInfo, schema: dict[str, Any], default: Any) -> Setting:
    annotation: Any = field.annotation
    depth, leaf = 0, annotation
    while get_origin(leaf) is dict:
        depth, leaf = depth + 1, get_args(leaf)[1]
    if schema.get("anyOf", [{}])[-1] == {"type": "null"}:  # X | None is described as X
        schema = schema["anyOf"][0]
    unit = str(schema.get("unit", ""))
    return Setting(
        name=name,
        meaning=field.description or "",
        unit=unit,
        default=default,
        allowed=_allowed(schema, unit),
        secret=_holds(annotation, SecretStr),
        depth=depth,
        typed=leaf is not Any,
    )


def _holds(annotation: Any, kind: type) -> bool:
    return annotation is kind or any(_holds(each, kind) for each in get_args(annotation))


def _allowed(schema: dict[str, Any], unit: str) -> str:
    """Return in words which values pydantic will take."""
    match schema:
        case _ if unit == "bytes":
            words = "a size in bytes, as in 67108864 or 64MiB, and not 0"
        case {"enum": values}:
            words = " or ".join(values)
        case {"type": "boolean"}:
            words = "true or false"
        case {"type": "integer", "minimum": low, "maximum": high}:
            words = f"a whole number from {low} to {high}"
        case {"type": "number", "exclusiveMinimum": low}:
            words = f"a number of {unit} over {low:g}"
        case {"type": "object", "additionalProperties": {"type": "object"}}:
            words = "a mapping of mappings, as in {enrich: {table: sites.db}}"
        case {"type": "object"}:
            words = "a mapping of texts that are not empty, as in {alice: her-password}"
        case {"format": "file-path"}:
            words = "the path of a file that exists"
        case {"format": "path"}:
            words = "a path"
        case _:
            words = "a text that is not empty (in YAML, quote one that looks like a number)"
    return words
