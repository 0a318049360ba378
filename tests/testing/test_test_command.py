"""``fluent-bridge test``: what it prints, and how it ends."""

import os
import pty
import subprocess
import sys

import pytest

from bridge.cli import main
from bridge.testing.harnesses import Harnesses

FILTERS = """
    print("the filters print this")

    @bridge.filter("a.**")
    def positive(record: dict) -> bool:
        return record["n"] > 0

    @bridge.filter("b")
    def never(record: dict) -> None:
        return None
"""
CASES = """
    cases:
      - {name: positive, tag: a.x, input: {n: 1}, unchanged: true}
      - {name: negative, tag: a.x, input: {n: -1}, drop: true}
      - {name: "[never]", tag: b, input: {n: 1}, drop: true}
"""
WRONG = CASES + "      - {name: wrong, tag: b, input: {n: 1}, output: {n: 1}}\n"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_all_cases_pass(folder, capsys):
    folder(FILTERS, CASES)
    assert main(["test"]) == 0
    assert capsys.readouterr().out == "the filters print this\n3 cases passed\n"


@pytest.mark.parametrize("arguments", [[], ["--sidecar"]])
def test_one_fails(folder, capsys, arguments):
    folder(FILTERS.replace("print", "repr"), WRONG)
    assert main(["test", "filters", *arguments]) == 1
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out == (
        "filters/some.cases.yaml:5: wrong\n"
        '  line 5: did not come out under b: {"n": 1}\n'
        "  dropped: 1 of 1\n"
        "3 cases passed, 1 failed\n"
    )


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["-k", "tive"], 2),
        (["-k", "[never]"], 1),
        (["--filter", "never"], 1),
        (["--filter", "positive"], 2),
        (["--filter", "positive", "-k", "neg"], 1),
        (["filters/some.cases.yaml"], 3),
    ],
)
def test_cases_are_chosen(folder, capsys, arguments, count):
    folder(FILTERS, CASES)
    assert main(["test", *arguments]) == 0
    assert f"{count} case{'s' * (count > 1)} passed" in capsys.readouterr().out


def test_a_thousand_cases_with_the_filters_loaded_once(folder, capsys):
    lines = [
        f"  - {{name: c{n}, tag: a.x, input: {{n: {n}}}, unchanged: true}}\n" for n in range(1, 501)
    ]
    path = folder(FILTERS, "cases:\n" + "".join(lines))
    (path / "more.cases.yaml").write_text("cases:\n" + "".join(lines))
    assert main(["test"]) == 0
    assert capsys.readouterr().out == "the filters print this\n1000 cases passed\n"


def test_several_folders_and_a_mistake_in_one_of_them(folder, capsys):
    folder(FILTERS, CASES, name="one")
    folder("def", CASES, name="two")
    assert main(["test"]) == 2
    shown = capsys.readouterr()
    assert "3 cases passed\n" in shown.out
    assert "/two/10_filters.py:4: it is not Python: invalid syntax" in shown.err
    assert shown.err.count("\n") == 1


MISTAKES = {
    "no case files": (
        ["test", "empty"],
        "empty: no case files: put a file that ends in .cases.yaml",
    ),
    "no folder": (["test", "nowhere"], "nowhere: there is no such folder or file"),
    "no case of this name": (["test", "filters", "-k", "x"], "no case fits -k x: leave that out"),
    "no filter of this name": (
        ["test", "filters", "--filter", "nver"],
        "no filter is called nver: did you mean never?",
    ),
    "no filter like it": (
        ["test", "filters", "--filter", "x"],
        "no filter is called x: there are never, positive",
    ),
    "mistakes in files": (
        ["test", "wrong"],
        "wrong/some.cases.yaml:3: a case has no key 'dorp'; did you",
    ),
    "an unknown option": (["test", "--sidcar"], "--sidecar"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_say_what_to_do(folder, tmp_path, capsys, mistake):
    folder(FILTERS, CASES)
    folder(FILTERS, CASES.replace("drop", "dorp"), name="wrong")
    (tmp_path / "empty").mkdir()
    arguments, message = MISTAKES[mistake]
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert "passed" not in shown.out
    assert "Traceback" not in shown.err


def test_what_cannot_be_closed_is_no_success(folder, capsys):
    path = folder(
        """
        @bridge.filter("a")
        class Same:
            def __call__(self, record: dict) -> bool:
                return True
            def close(self):
                raise OSError("busy")
        """,
        "cases: [{tag: a, input: {}, unchanged: true}]\n",
    )
    assert main(["test"]) == 1
    assert capsys.readouterr().out == (
        f"{path.name}: a filter's close() raised OSError: busy\n1 case passed\n"
    )


def test_filters_are_loaded_once_for_what_needs_the_same(folder, tmp_path):
    from bridge.testing import cases

    path = folder(FILTERS)
    for name, head in {"a": "", "b": "payload: raw\n", "c": "payload: json\n"}.items():
        (path / f"{name}.cases.yaml").write_text(
            f"{head}cases: [{{tag: a, input: {{n: 1}}, drop: true}}]\n"
        )
    harnesses = Harnesses()
    a, b, c = [harnesses.get(one) for one in cases.read_all(cases.find(tmp_path))]
    assert a is b
    assert a is not c
    assert harnesses.close() == []


def test_colours_are_for_terminals(folder):
    folder(FILTERS, WRONG)
    command = [sys.executable, "-m", "bridge", "test"]
    env = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {"TERM": "xterm"}
    piped = subprocess.run(command, capture_output=True, timeout=60, env=env)
    assert b"\x1b[" not in piped.stdout
    ours, theirs = pty.openpty()
    shown = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=env)
    assert shown.wait(60) == 1
    assert b"\x1b[" in os.read(ours, 1 << 16)
    os.close(ours)
    os.close(theirs)
