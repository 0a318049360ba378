"""The files beside the user's filters as they are at one moment.

All workers of a generation load from one snapshot, also one that is started days later: what stands
on disk may by then be half written, wrong, or gone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeAlias

from bridge.errors import LoadError

# What tells a file from the one that it replaced, without reading it: the device, inode, size,
# modification and change time of what a link leads to, in nanoseconds. None: it cannot be read.
Stat: TypeAlias = tuple[int, int, int, int, int] | None
Stats: TypeAlias = dict[str, Stat]

ANY = "*"
_LARGEST_READ = 16 << 20  # bytes; of a larger file, a model perhaps, only its stat is looked at
_MOST_FILES = 2_000  # a folder of filters has dozens: this one is somebody's home
_SKIPPED_FOLDERS = {"__pycache__", "node_modules"}
_SKIPPED_ENDS = ("~", "#", ".pyc", ".tmp", ".cases.yaml")


@dataclass(frozen=True)
class Snapshot:
    """What was read.

    Attributes:
        sources: the text of each Python file by its path; None where it cannot be read.
        digests: of each file that counts, by its path from the folder on.
        stats: of the same files, by their whole paths, from before they were read.
    """

    sources: Mapping[str, bytes | None] = field(repr=False)
    digests: Mapping[str, str]
    stats: Stats = field(repr=False)

    @property
    def digest(self) -> str:
        """What is the same where the files are, as on all replicas that run these filters."""
        return _digest(repr(sorted(self.digests.items())).encode("utf-8", "surrogateescape"))

    def changes(self, before: Snapshot) -> list[str]:
        """Return which files differ from an earlier snapshot, by their paths from the folder on."""
        paths = self.digests.keys() | before.digests.keys()
        return sorted(one for one in paths if self.digests.get(one) != before.digests.get(one))


def take(path: str | Path, names: str = ANY, before: Snapshot | None = None) -> Snapshot:
    """Read the files of a folder of filters.

    Args:
        path: the folder, or a single file in it.
        names: patterns of the names of those files that count beside Python's, with white space
            between.
        before: an earlier snapshot; what has its stat is not read again to be compared.

    Raises:
        LoadError: the folder cannot be read.
    """
    path = Path(path).absolute()
    folder = path if path.is_dir() else path.parent
    if not path.exists():
        folder = path  # so that the reason names what is missing
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise LoadError(
            f"cannot read the folder of filters: {error.strerror}; set filters.path to where they"
            " are",
            file=path,
        ) from error
    stats = look(path, names)
    sources: dict[str, bytes | None] = {}
    digests: dict[str, str] = {}
    for name, stat in stats.items():
        relative = name.removeprefix(f"{folder}{os.sep}")
        if name.endswith(".py"):
            sources[name] = text = _read(name)
            digests[relative] = "unreadable" if text is None else _digest(text)
        elif before is not None and before.stats.get(name) == stat and relative in before.digests:
            digests[relative] = before.digests[relative]
        elif stat is None or stat[2] > _LARGEST_READ:
            digests[relative] = _digest(repr(stat and stat[2:4]).encode())
        else:
            digests[relative] = _digest(_read(name) or b"")
    return Snapshot(sources, digests, stats)


def look(path: str | Path, names: str = ANY) -> Stats:
    """Return the stat of each file that counts, by its path; reads none of them.

    Args:
        path: the folder, or a single file in it.
        names: as for :func:`take`.
    """
    path = Path(path).absolute()
    # Beside a single file there may be anything; what it imports is Python.
    patterns = [] if path.is_file() else names.split()
    folder = path.parent if path.is_file() else path
    stats: Stats = {}
    for file in _files(str(folder), set()):
        name = os.path.basename(file)  # noqa: PTH119 - a Path a file costs more than its stat
        if name.endswith(".py") or any(fnmatchcase(name, pattern) for pattern in patterns):
            stats[file] = _stat(file)
            if len(stats) == _MOST_FILES:
                break
    return stats


def is_filter_file(path: Path) -> bool:
    """Return whether a Python file is one to find filters in, and no part or test of one."""
    return (
        path.suffix == ".py"
        and not path.name.startswith(("_", ".", "test_"))
        and path.name != "conftest.py"
    )


def _files(folder: str, visited: set[tuple[int, int]]) -> Iterator[str]:
    """Yield a folder's files, Python's first, and after them those of its folders."""
    try:
        stat = os.stat(folder)  # noqa: PTH116 - see look
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda one: (not one.name.endswith(".py"), one.name))
    except OSError:
        return
    if (stat.st_dev, stat.st_ino) in visited:  # links may go in circles
        return
    visited.add((stat.st_dev, stat.st_ino))
    folders = []
    for entry in entries:
        # ..data and its like are seen through the links into them.
        if entry.name.startswith("."):
            continue
        if _is_folder(entry):
            folders.append(entry)
        elif not entry.name.endswith(_SKIPPED_ENDS) and not _is_test(entry.name):
            yield entry.path
    for entry in folders:
        environment = os.path.join(entry.path, "pyvenv.cfg")  # noqa: PTH118
        if entry.name not in _SKIPPED_FOLDERS and not os.path.exists(environment):  # noqa: PTH110
            yield from _files(entry.path, visited)


def _is_test(name: str) -> bool:
    return name == "conftest.py" or (name.startswith("test_") and name.endswith(".py"))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _stat(file: str) -> Stat:
    try:
        stat = os.stat(file)  # noqa: PTH116 - see look
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _read(file: str) -> bytes | None:
    # A pipe that somebody left there would be waited for.
    try:
        return Path(file).read_bytes() if Path(file).is_file() else None
    except OSError:
        return None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
