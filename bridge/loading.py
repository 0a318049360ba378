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

_PACKAGE = "bridge_filters"
_ADVICE: dict[type[BaseException], str] = {
    ModuleNotFoundError: (
        "install it where the workers run, or put it beside this file under a name that begins"
        " with _"
    ),
    SystemExit: "a filter file must not end the program",
}

# The folder that is on sys.path, and the modules that were there before its own.
_last: tuple[Path, frozenset[str]] | None = None


def load(path: str | Path, parameters: Mapping[str, Mapping[str, Any]] | None = None) -> Registry:
    """Import all filter files of a folder and instantiate what they declare.

    Files load in the order of their names, filters in the order they stand in. Names that begin
    with ``_`` or ``.``, ``test_*.py`` and ``conftest.py`` are left out; the others may import them,
    because the folder is on :data:`sys.path` from then on.

    Args:
        path: the folder, or a single file.
        parameters: parameters of filter classes, by filter name.

    Raises:
        ExceptionGroup: of :class:`LoadError`, one for each mistake that could be found at once.
    """
    path = Path(path)
    parameters = parameters or {}
    folder = path.parent if path.is_file() else path
    _put_on_path(folder.absolute())
    declarations: list[Declaration] = []
    mistakes: list[LoadError] = []
    for file in _files(path):
        try:
            declarations += _import(file)
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


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    try:
        found = sorted(path.iterdir())
    except OSError as error:
        raise ExceptionGroup(
            "the filters cannot be loaded",
            [
                LoadError(
                    f"cannot read the folder of filters: {error.strerror}; set filters.path to"
                    " where they are",
                    file=path,
                )
            ],
        ) from error
    # Kubernetes mounts a ConfigMap as links into ..data/: the links are taken, once each.
    files = {
        file.resolve(): file
        for file in reversed(found)
        if file.suffix == ".py"
        and not file.name.startswith(("_", ".", "test_"))
        and file.name != "conftest.py"
        and not file.is_dir()
    }
    return sorted(files.values())


def _put_on_path(folder: Path) -> None:
    """Put a folder on the path in the place of the last one, whose modules are forgotten."""
    global _last  # noqa: PLW0603 - sys.path and sys.modules are global as well
    if _last is not None:
        previous, others = _last
        for name in [name for name in sys.modules if name not in others]:
            top = sys.modules.get(name.partition(".")[0])
            file = Path(getattr(top, "__file__", None) or "/")
            if name.startswith(f"{_PACKAGE}.") or previous in {file.parent, file.parent.parent}:
                del sys.modules[name]
        if str(previous) in sys.path:
            sys.path.remove(str(previous))
    sys.path.insert(0, str(folder))
    _last = folder, frozenset(sys.modules)


def _import(file: Path) -> list[Declaration]:
    """Run a file as a module of its own, and return what it declares."""
    file = file.absolute()
    module = ModuleType(f"{_PACKAGE}.{file.stem}")
    module.__file__ = str(file)
    # Dataclasses and msgspec look a type's module up to resolve its annotations.
    sys.modules[module.__name__] = module
    try:
        # Not by importlib: that takes a cached .pyc for a file changed within the same second.
        code = compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
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
