"""Which files beside filters count, and filters that load from what was read of them."""

import os
import textwrap
import traceback

import pytest

from bridge.errors import LoadError
from bridge.loading import load
from bridge.snapshot import Snapshot, look, take

FILTER = """
import bridge
from _shared import VALUE
from _package.inner import DEEP
from _spread.inner import WIDE

@bridge.filter("a")
def f(record):
    return {"value": VALUE, "deep": DEEP, "wide": WIDE, "file": __file__}

@bridge.filter("a")
def fails(record):
    raise RuntimeError("as asked")  # the line that runs
"""


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


@pytest.fixture
def folder(tmp_path):
    """A folder of filters with helpers of every kind, and what does not count beside it."""
    folder = tmp_path / "filters"
    write(folder / "10_f.py", FILTER)
    write(folder / "_shared.py", "VALUE = 1")
    write(folder / "_package" / "__init__.py", "")
    write(folder / "_package" / "inner.py", "DEEP = 2")
    write(folder / "_spread" / "inner.py", "WIDE = 3")
    write(folder / "sites.csv", "a,b\n")
    for other in (
        ".10_f.py.swp",
        "10_f.py~",
        ".git/x.py",
        "__pycache__/x.pyc",
        "venv/pyvenv.cfg",
        "venv/lib/y.py",
        "test_f.py",
        "conftest.py",
        "ads.cases.yaml",
    ):
        write(folder / other, "")
    return folder


def names(snapshot):
    return set(snapshot.digests)


def test_what_counts(folder):
    python = {"10_f.py", "_shared.py", "_package/__init__.py", "_package/inner.py"}
    python.add("_spread/inner.py")
    assert names(take(folder)) == python | {"sites.csv"}
    assert names(take(folder, "*.json *.yaml")) == python
    assert names(take(folder / "10_f.py")) == python, "of a single file's neighbours Python alone"
    assert set(look(folder)) == {str(folder / name) for name in names(take(folder))}


def test_filters_load_from_a_snapshot_whatever_is_on_disk_by_then(folder, tmp_path):
    sources = take(folder).sources
    for path in folder.rglob("*.py"):
        path.write_text("raise ImportError\n" * 20)
    (folder / "_package" / "inner.py").unlink()
    f, fails = load(folder, None, sources).filters
    assert f.function({}) == {"value": 1, "deep": 2, "wide": 3, "file": str(folder / "10_f.py")}
    try:
        fails.function({})
    except RuntimeError:
        shown = traceback.format_exc()
    assert f'File "{folder / "10_f.py"}", line 13' in shown
    assert "# the line that runs" in shown
    # The next load is of the disk again.
    with pytest.raises(ExceptionGroup):
        load(folder)


def test_a_snapshot_of_a_single_file_that_is_gone(folder):
    file = folder / "10_f.py"
    sources = take(file).sources
    file.unlink()
    assert [one.name for one in load(file, None, sources).filters] == ["f", "fails"]


@pytest.mark.parametrize(
    ("change", "files"),
    [
        (lambda folder: write(folder / "10_f.py", FILTER + "\n"), ["10_f.py"]),
        (lambda folder: write(folder / "sites.csv", "a,c\n"), ["sites.csv"]),
        (lambda folder: write(folder / "_package" / "more.py", ""), ["_package/more.py"]),
        (lambda folder: (folder / "_shared.py").unlink(), ["_shared.py"]),
        (lambda folder: os.utime(folder / "10_f.py"), []),
        (lambda folder: write(folder / "test_f.py", "x = 1"), []),
    ],
)
def test_what_a_change_is(folder, change, files):
    before = take(folder)
    change(folder)
    after = take(folder, before=before)
    assert after.changes(before) == files
    assert (after.digest == before.digest) is (not files)
    assert after.stats == look(folder)


def test_an_edit_that_keeps_size_and_modification_time_is_seen(folder):
    before = take(folder)
    stat = (folder / "sites.csv").stat()
    write(folder / "sites.csv", "a,c\n")
    os.utime(folder / "sites.csv", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert take(folder, before=before).changes(before) == ["sites.csv"]


def test_the_digest_is_that_of_the_files_wherever_they_are(folder, tmp_path):
    other = tmp_path / "replica"
    for name in names(take(folder)):
        write(other / name, (folder / name).read_text())
    assert take(other).digest == take(folder).digest


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(LoadError, match=r"nowhere: cannot read the folder of filters: No such"):
        take(tmp_path / "nowhere")
    assert look(tmp_path / "nowhere") == {}


def test_links_that_go_in_circles_pipes_and_links_to_nothing(folder):
    (folder / "loop").symlink_to(folder)
    (folder / "gone.py").symlink_to("nothing.py")
    os.mkfifo(folder / "pipe.py")
    snapshot = take(folder)
    assert snapshot.sources[str(folder / "gone.py")] is None
    assert snapshot.sources[str(folder / "pipe.py")] is None
    assert "loop/10_f.py" not in names(snapshot)


def test_a_home_is_not_read_whole(tmp_path):
    for number in range(2_100):
        (tmp_path / f"{number}.txt").touch()
    (tmp_path / "z.py").touch()
    assert len(look(tmp_path)) == 2_000
    assert set(take(tmp_path).sources) == {str(tmp_path / "z.py")}, "filters come before data"
    assert Snapshot({}, {}, {}).changes(take(tmp_path))
