"""``fluent-bridge init``: a project whose own tests pass, and never a file overwritten."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bridge import project
from bridge.cli import main

ROOT = Path(__file__).parents[2]

WRITTEN = {
    ".gitignore",
    "README.md",
    "ci.sh",
    "filters/10_ads.cases.yaml",
    "filters/10_ads.py",
    "fluent-bridge.yaml",
    "kustomization.yaml",
    "samples/clicks.jsonl",
    "tests/test_filters.py",
}


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def new(tmp_path, monkeypatch, capsys):
    """A new project, as the working directory."""
    assert main(["init", str(tmp_path / "my filters")]) == 0
    capsys.readouterr()
    monkeypatch.chdir(tmp_path / "my filters")
    return tmp_path / "my filters"


def test_it_says_what_it_wrote_and_what_comes_next(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "my filters"]) == 0
    assert files(tmp_path / "my filters") == WRITTEN
    out = capsys.readouterr().out
    for name in WRITTEN:
        assert f"wrote my filters/{name}\n" in out
    assert "  cd 'my filters'\n  fluent-bridge check " in out


def test_without_a_folder_it_is_the_one_where_we_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    assert files(tmp_path) == WRITTEN
    assert "  cd " not in capsys.readouterr().out


def commands():
    """The commands in the new project's README that end by themselves."""
    readme = Path(project.__file__).with_name("template") / "README.md"
    lines = re.findall(r"^(fluent-bridge .*)$", readme.read_text(), re.MULTILINE)
    return [line for line in lines if not line.startswith("fluent-bridge run")]


def test_every_command_of_its_readme_is_fine(new, capsys):
    assert len(commands()) >= 3
    for command in commands():
        assert main(shlex.split(command, comments=True)[1:]) == 0, command
    shown = capsys.readouterr()
    assert "2 filters, 5 cases: no mistakes" in shown.err
    assert "shop.example" in shown.out


def test_its_own_tests_pass(new):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "6 passed" in done.stdout


def test_what_is_a_program_can_be_run(new):
    assert [
        file.name for file in new.rglob("*") if os.access(file, os.X_OK) and file.is_file()
    ] == ["ci.sh"]


def test_every_filter_goes_into_the_pod(new):
    generated = yaml.safe_load((new / "kustomization.yaml").read_text())["configMapGenerator"]
    listed = [file for each in generated for file in each.get("files", ())]
    assert sorted(listed) == sorted(
        ["fluent-bridge.yaml", *(str(path) for path in Path("filters").glob("*.py"))]
    )


def test_kustomize_builds_it(new, kubectl):
    Path("../fluent-bridge").symlink_to(ROOT)  # where the kustomization has the manifests
    made = {
        (one["kind"], one["metadata"]["name"]): one
        for one in yaml.safe_load_all(kubectl("kustomize", "."))
    }
    filters = made["ConfigMap", "fluent-bridge-filters"]["data"]
    assert filters == {"10_ads.py": Path("filters/10_ads.py").read_text()}
    assert ("StatefulSet", "fluent-bridge") in made


def test_it_is_the_example(new):
    example = ROOT / "examples" / "kustomize"
    for name in files(example) - {"README.md"}:
        text = (example / name).read_text().replace("../../k8s/", "../fluent-bridge/k8s/")
        assert (new / name).read_text() == text, name


def test_nothing_is_overwritten_and_all_that_is_in_the_way_is_said_at_once(tmp_path, capsys):
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "filters").write_text("no folder")
    (tmp_path / "fluent-bridge.yaml").symlink_to("gone.yaml")
    (tmp_path / "notes.txt").write_text("in nobody's way")
    before = files(tmp_path)
    assert main(["init", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    advice = (
        ", and init overwrites nothing: move it away, or take another folder,"
        " as in fluent-bridge init my-filters"
    )
    assert sorted(lines) == [
        f"error: {tmp_path}/README.md: it is there already{advice}",
        f"error: {tmp_path}/filters: it is no folder{advice}",
        f"error: {tmp_path}/fluent-bridge.yaml: it is there already{advice}",
    ]
    assert files(tmp_path) == before
    assert (tmp_path / "README.md").read_text() == "mine"


def test_where_nothing_can_be_written(tmp_path, capsys):
    assert main(["init", str(tmp_path / ("x" * 300))]) == 2
    error = capsys.readouterr().err
    assert "cannot be written: File name too long; take another folder" in error
    assert "Traceback" not in error
