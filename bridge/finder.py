"""Imports modules beside the user's filters from a snapshot, under the names they have on disk.

``__file__`` and tracebacks name the user's own files, so data beside a filter is found as ever.
What the snapshot does not hold is left to Python's own finder.
"""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import decode_source, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType


class Finder(MetaPathFinder):
    """Finds modules in a snapshot.

    Args:
        folder: what modules at the top are looked for in.
        sources: the text of each Python file by its path.
    """

    def __init__(self, folder: Path, sources: Mapping[str, bytes | None]) -> None:
        self._folder = str(folder)
        self._sources = {path: text for path, text in sources.items() if text is not None}

    def install(self) -> None:
        """Ask it before Python's own finder, which looks at the disk."""
        known: list[object] = list(sys.meta_path)
        place = known.index(PathFinder) if PathFinder in known else 0
        sys.meta_path.insert(place, self)

    def remove(self) -> None:
        """Ask it no more."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,  # noqa: ARG002 - importlib's signature
    ) -> ModuleSpec | None:
        """Return where a module is, None if it is in no file of the snapshot."""
        name = fullname.rpartition(".")[2]
        for folder in [self._folder] if path is None else path:
            base = os.path.join(folder, name)  # noqa: PTH118 - at each import that there is
            package = os.path.join(base, "__init__.py")  # noqa: PTH118
            if package in self._sources:
                return self._spec(fullname, package, [base])
            if f"{base}.py" in self._sources:
                return self._spec(fullname, f"{base}.py", None)
        return None

    def compile(self, file: str) -> CodeType:
        """Return a file's code.

        Raises:
            OSError: it could not be read.
            SyntaxError: it is not Python.
            ValueError: likewise.
        """
        source = self._sources.get(file)
        if source is None:
            source = Path(file).read_bytes()
        code: CodeType = compile(source, file, "exec", dont_inherit=True)
        # Tracebacks show the lines that run, not those that stand on disk by then. linecache never
        # looks at the disk for an entry without a modification time.
        text = decode_source(source)
        linecache.cache[file] = (len(source), None, text.splitlines(keepends=True), file)
        return code

    def _spec(self, fullname: str, file: str, inside: list[str] | None) -> ModuleSpec | None:
        loader = _Loader(fullname, file, self)
        return spec_from_file_location(
            fullname, file, loader=loader, submodule_search_locations=inside
        )


class _Loader(SourceFileLoader):
    """Never by way of a .pyc: that is taken for a file changed within the same second."""

    def __init__(self, fullname: str, file: str, finder: Finder) -> None:
        super().__init__(fullname, file)
        self._finder = finder

    def get_code(self, fullname: str) -> CodeType:
        return self._finder.compile(self.get_filename(fullname))
