"""The plugin for pytest: the fixture ``fluent_bridge``, and case files as tests.

pytest imports it wherever fluent-bridge is installed: what it needs is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bridge.testing.case import Case, CaseFile
    from bridge.testing.harness import Harness, Start
    from bridge.testing.harnesses import Harnesses

_SUFFIX = ".cases.yaml"
_OPTION = "--fluent-bridge-sidecar"

_harnesses: pytest.StashKey[Harnesses] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("fluent-bridge", "filters of fluent-bridge").addoption(
        _OPTION,
        action="store_true",
        help=f"run the cases of *{_SUFFIX} through a real sidecar with a worker process",
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> CasesFile | None:
    """Collect a case file."""
    if not file_path.name.endswith(_SUFFIX):
        return None
    collector: CasesFile = CasesFile.from_parent(parent, path=file_path)
    return collector


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Close the filters that case files had loaded."""
    harnesses = session.config.stash.get(_harnesses, None)
    if harnesses is None:
        return
    reporter: Any = session.config.pluginmanager.getplugin("terminalreporter")
    for line in harnesses.close():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if reporter is not None:
            reporter.ensure_newline()
            reporter.write_line(line, red=True)


@pytest.fixture
def fluent_bridge() -> Iterator[Start]:
    """Start a harness of a folder of filters, in this process or with ``sidecar=True`` in another.

    ``fluent_bridge("filters").feed("ad.click", [{"price": 1}])`` returns what became of the events;
    see :class:`bridge.testing.Harness`. A folder is relative to where pytest was started. What was
    started ends with the test.
    """
    from bridge.testing.harness import Harness  # noqa: PLC0415

    with ExitStack() as stack:

        def start(folder: str | Path, **options: Any) -> Harness:
            return _loaded(lambda: stack.enter_context(Harness(folder, **options)))

        yield start


class CasesFile(pytest.File):
    """A case file."""

    def collect(self) -> Iterable[pytest.Item]:
        """Return its cases."""
        from bridge.testing import cases  # noqa: PLC0415

        try:
            read = cases.read(self.path)
        except ExceptionGroup as group:
            raise self.CollectError(_lines(group)) from None
        for case in read.cases:
            yield CaseItem.from_parent(self, name=case.name, cases=read, case=case)


class CaseItem(pytest.Item):
    """A case.

    Args:
        cases: its file.
        case: the case.
    """

    def __init__(self, *, cases: CaseFile, case: Case, **of_item: Any) -> None:
        super().__init__(**of_item)
        self._cases = cases
        self._case = case

    def runtest(self) -> None:
        """Run the case."""
        from bridge.testing import verdict  # noqa: PLC0415
        from bridge.testing.harnesses import Harnesses  # noqa: PLC0415

        stash = self.config.stash
        if _harnesses not in stash:
            stash[_harnesses] = Harnesses(sidecar=self.config.getoption(_OPTION))
        harness = _loaded(lambda: stash[_harnesses].get(self._cases))
        lines = verdict.run(self._case, harness)
        if lines:
            pytest.fail(verdict.text(self._case, lines), pytrace=False)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return where the case stands, its line counted from 0."""
        return self.path, self._case.line - 1, self.name


def _loaded(load: Callable[[], Harness]) -> Harness:
    try:
        return load()
    except ExceptionGroup as group:
        mistakes = _lines(group)
    # Not while the group is handled: pytest would show it, and how it came about, as well.
    pytest.fail(mistakes, pytrace=False)


def _lines(group: BaseExceptionGroup[Any]) -> str:
    return "\n".join(str(error) for error in group.exceptions)
