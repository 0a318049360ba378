"""Case files: found and read. Their rules are in docs/cases.md."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import yaml

from bridge.errors import LoadError
from bridge.testing.case import Case, CaseFile
from bridge.testing.case_reader import CaseReader
from bridge.testing.document import Document, line_of

SUFFIX = ".cases.yaml"
EXAMPLE = "as in `cases: [{tag: ad.click, input: {price: 0}, drop: true}]`"

_KEYS = ("payload", "payload_key", "parameters", "cases")


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
        raise LoadError(
            "there is no such folder or file; name the folder that has the case files", file=path
        )
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
    keys = document.fields(document.root, _KEYS, "a case file")
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
    cases = [case for node in nodes.value if (case := CaseReader(document, node).case())]
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
