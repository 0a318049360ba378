"""The project that ``fluent-bridge init`` writes: its files stand in ``template``, as they are."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from bridge.errors import LoadError

_TEMPLATE = Path(__file__).parent / "template"
# Under its own name it would rule this repository, too.
_NAMES = {"gitignore": ".gitignore"}
_ADVICE = "move it away, or take another folder, as in fluent-bridge init my-filters"


def write(folder: Path) -> list[Path]:
    """Write a project into a folder, which is made if it is not there.

    Args:
        folder: where to.

    Returns:
        The files written, relative to the folder.

    Raises:
        ExceptionGroup: of :class:`LoadError`, one for each file that is there already; nothing has
            been written then.
        LoadError: a file cannot be written.
    """
    sources = {
        Path(_NAMES.get(str(name), name)): _TEMPLATE / name
        for name in sorted(path.relative_to(_TEMPLATE) for path in _TEMPLATE.rglob("*"))
        if (_TEMPLATE / name).is_file() and "__pycache__" not in name.parts
    }
    if in_the_way := _in_the_way(folder, sources):
        raise ExceptionGroup(
            "there are files in the way",
            [
                LoadError(f"{problem}, and init overwrites nothing: {_ADVICE}", file=place)
                for place, problem in in_the_way.items()
            ],
        )
    for name, source in sources.items():
        file = folder / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("xb") as new:
                new.write(source.read_bytes())
            if os.access(source, os.X_OK):
                file.chmod(file.stat().st_mode | 0o111)
        except OSError as error:
            raise LoadError(
                f"cannot be written: {error.strerror}; take another folder, as in"
                " fluent-bridge init my-filters",
                file=file,
            ) from error
    return list(sources)


def _in_the_way(folder: Path, names: Iterable[Path]) -> dict[Path, str]:
    found = {}
    for name in names:
        if os.path.lexists(folder / name):  # a link to nothing, too
            found[folder / name] = "it is there already"
        for parent in (folder / name).parents:
            if os.path.lexists(parent):
                if not os.path.isdir(parent):  # noqa: PTH112 - as lexists, it raises nothing
                    found[parent] = "it is no folder"
                break
    return found
