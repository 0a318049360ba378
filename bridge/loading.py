"""The user's files, imported afresh, and the filters found in them."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from bridge.errors import LoadError
from bridge.filters import Declaration, Filter, Registry, declaring, resolve
from bridge.filters.registry import unknown_parameters
from bridge.finder import Finder
from bridge.snapshot import is_filter_file, take

_PACKAGE = "bridge_filters"
_ADVICE: dict[type[BaseException], str] = {
    ModuleNotFoundError: (
        "install it where the workers run, or put it beside this file under a name that begins"
        " with _"
    ),
    SystemExit: "a filter file must not end the program",
}

# The folder that is on sys.path, the modules that were there before its own, and what finds these.
_last: tuple[Path, frozenset[str], Finder] | None = None


def load(
    path: str | Path,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    sources: Mapping[str, bytes | None] | None = None,
) -> Registry:
    """Import all filter files of a folder and instantiate what they declare.

    Files load in the order of their names, filters in the order they stand in. Names that begin
    with ``_`` or ``.``, ``test_*.py`` and ``conftest.py`` are left out; the others may import them,
    because the folder is on :data:`sys.path` from then on.

    Args:
        path: the folder, or a single file.
        parameters: parameters of filter classes, by filter name.
        sources: the text of each Python file there, as :func:`bridge.snapshot.take` read it; by
            default as it is now.

    Raises:
        ExceptionGroup: of :class:`LoadError`, one for each mistake that could be found at once.
    """
    path = Path(path)
    parameters = parameters or {}
    if sources is None:
        try:
            sources = take(path, "").sources
        except LoadError as error:
            raise ExceptionGroup("the filters cannot be loaded", [error]) from error
    single = str(path.absolute()) in sources
    folder = path.parent if single else path
    finder = Finder(folder.absolute(), sources)
    _put_on_path(folder.absolute(), finder)
    declarations: list[Declaration] = []
    mistakes: list[LoadError] = []
    for file in [path.absolute()] if single else _files(folder.absolute(), sources):
        try:
            declarations += _import(file, finder)
        except LoadError as mistake:
            mistakes.append(mistake)
    whole = not mistakes  # a file that does not import may hold whatever is missed
    if whole and not declarations:
        mistakes.append(
            LoadError(
                "no filter found: put files whose functions have @bridge.filter there, or set"
                " filters.path to where they are",
                file=path,
            )
        )
    blueprints, wrong = resolve(declarations, parameters)
    mistakes += wrong
    if whole and not mistakes:
        mistakes += unknown_parameters([one.name for one in blueprints], parameters, folder)
    filters: list[Filter] = []
    for blueprint in blueprints if not mistakes else ():
        try:
            filters.append(blueprint.build())
        except Exception as error:  # noqa: BLE001 - the user's __init__ may raise anything
            declared = blueprint.declaration
            mistakes.append(
                _mistake(
                    error, declared.file, declared.line, f"{blueprint.name}: its __init__ raised "
                )
            )
    if mistakes:
        raise ExceptionGroup("the filters cannot be loaded", mistakes)
    return Registry(tuple(filters), folder)


def _files(folder: Path, sources: Mapping[str, bytes | None]) -> list[Path]:
    found = [file for file in map(Path, sources) if file.parent == folder and is_filter_file(file)]
    # Kubernetes mounts a ConfigMap as links into ..data/: what they lead to is taken once.
    return sorted({file.resolve(): file for file in sorted(found, reverse=True)}.values())


def _put_on_path(folder: Path, finder: Finder) -> None:
    """Put a folder on the path in the place of the last one, whose modules are forgotten."""
    global _last  # noqa: PLW0603 - sys.path and sys.modules are global as well
    if _last is not None:
        previous, others, its_finder = _last
        its_finder.remove()
        for name in [name for name in sys.modules if name not in others]:
            top = sys.modules.get(name.partition(".")[0])
            file = Path(getattr(top, "__file__", None) or "/")
            if name.startswith(f"{_PACKAGE}.") or previous in {file.parent, file.parent.parent}:
                del sys.modules[name]
        if str(previous) in sys.path:
            sys.path.remove(str(previous))
    sys.path.insert(0, str(folder))
    finder.install()
    _last = folder, frozenset(sys.modules), finder


def _import(file: Path, finder: Finder) -> list[Declaration]:
    """Run a file as a module of its own, and return what it declares."""
    module = ModuleType(f"{_PACKAGE}.{file.stem}")
    module.__file__ = str(file)
    # Dataclasses and msgspec look a type's module up to resolve its annotations.
    sys.modules[module.__name__] = module
    try:
        code = finder.compile(str(file))
        with declaring() as declared:
            exec(code, module.__dict__)  # noqa: S102 - to run it is to load it
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise _mistake(error, file) from error
    return declared


def _mistake(error: BaseException, file: Path, line: int = 0, prefix: str = "") -> LoadError:
    """Return where in the user's files, as deep as they go, an exception was raised."""
    if isinstance(error, SyntaxError) and error.filename:
        file, line = Path(error.filename), error.lineno or 0
        message = f"it is not Python: {error.msg}; correct this line"
    else:
        for frame, number in traceback.walk_tb(error.__traceback__):
            where = Path(frame.f_code.co_filename)
            if where.parent == file.parent:
                file, line = where, number
        message = f"{prefix}{type(error).__qualname__}: {error}"
        if isinstance(error, OSError) and not line:
            message = f"cannot read it: {error.strerror}"
        advice = _ADVICE.get(type(error))
        message += f"; {advice}" if advice else "; correct it there, or catch it"
    return LoadError(message, file=file, line=line)
