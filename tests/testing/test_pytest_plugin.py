"""The plugin as pytest finds it: by its entry point, in projects that know nothing of it."""

import os
import re
import subprocess
import sys
import textwrap

import pytest

FILTERS = """
import pathlib
import bridge
with pathlib.Path(__file__).with_name("loaded").open("a") as file:
    file.write("x")
seen = bridge.counter("seen_total", "Events.")
@bridge.filter("a")
class Limit:
    def __init__(self, most=1):
        self.most = most
    def __call__(self, record: dict) -> bool:
        seen.inc()
        if record["n"] < 0:
            raise bridge.Reject("negative")
        return record["n"] <= self.most
    def close(self):
        pathlib.Path(__file__).with_name("closed").write_text(str(self.most))
"""
INI = "[pytest]\nfilterwarnings = error\naddopts = --strict-markers --strict-config -p no:asyncio\n"


@pytest.fixture
def project(tmp_path):
    """Return a function: files by their paths → runs pytest there, in a process of its own."""

    def run(files, *arguments):
        for name, text in {"pytest.ini": INI, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(text))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            env={**os.environ, "COLUMNS": "200"},
        )
        print(done.stdout, done.stderr)
        return done

    run.folder = tmp_path
    return run


CASES = """
    cases:
      - {name: passes, tag: a, input: {n: 1}, unchanged: true}
      - tag: a
        input: {n: -1}
        reject: negative
      - name: fails
        tag: a
        input: {n: 1}
        output:
          n: 2
"""


def test_cases_are_tests_and_the_fixture_is_there(project):
    done = project(
        {
            "filters/limit.py": FILTERS,
            "filters/first.cases.yaml": CASES,
            "filters/second.cases.yaml": CASES,
            "filters/third.cases.yaml": CASES.replace(
                "cases:", "parameters: {Limit: {most: 2}}\n    cases:"
            ),
            "filters/other.yaml": "no: [case file",
            "filters/test_limit.py": """
                import warnings

                def test_feed(fluent_bridge):
                    harness = fluent_bridge("filters", parameters={"Limit": {"most": 5}})
                    result = harness.feed("a", [{"n": 5}, {"n": 6}, {"n": -1}])
                    assert result.records == [{"n": 5}]
                    assert result.dropped == 1
                    assert result.dead_letters[0].reason == "negative"
                    assert result.metrics["seen_total"] == 3

                def test_mistake(fluent_bridge):
                    fluent_bridge("filters", parameters={"Limti": {}})
            """,
        },
        "-v",
    )
    assert done.returncode == 1
    for name, line in (("first", 4), ("second", 4), ("third", 5)):
        for one in ("passes PASSED", f"line {line} PASSED", "fails FAILED"):
            assert f"filters/{name}.cases.yaml::{one}" in done.stdout
    assert "filters/test_limit.py::test_feed PASSED" in done.stdout
    assert "4 failed, 7 passed" in done.stdout
    report = """
        filters/first.cases.yaml:7: fails
          an event under a:
            n (line 11)
              - expected  2
              + got       1
    """
    assert textwrap.dedent(report) in done.stdout
    assert "there are parameters for 'Limti', but no such filter" in done.stdout
    assert "Traceback" not in done.stdout
    # Once for two case files, again for other parameters, and for the tests.
    assert (project.folder / "filters/loaded").read_text() == "xxxx"
    assert (project.folder / "filters/closed").read_text() in {"1", "2"}


def test_one_case_is_chosen_and_runs_through_a_sidecar(project):
    done = project(
        {"filters/limit.py": FILTERS, "filters/a.cases.yaml": CASES},
        "filters/a.cases.yaml::passes",
        "filters/a.cases.yaml::fails",
        "--fluent-bridge-sidecar",
        "-rA",
    )
    assert "1 failed, 1 passed" in done.stdout
    assert "PASSED filters/a.cases.yaml::passes" in done.stdout


def test_mistakes_are_shown_with_file_and_line_and_nothing_else(project):
    done = project(
        {
            "filters/limit.py": FILTERS,
            "filters/bad.cases.yaml": "cases:\n  - {tga: a, input: {}, drop: true}\n",
            "broken/broken.py": "def\n",
            "broken/a.cases.yaml": CASES,
        },
        "--continue-on-collection-errors",
    )
    assert done.returncode == 1
    assert re.search(
        r"bad\.cases\.yaml:2: a case has no key 'tga'; did you mean 'tag'\?", done.stdout
    )
    assert (
        done.stdout.count("broken.py:1: it is not Python: invalid syntax") == 2 * 3
    )  # and in the summary
    assert "1 error" in done.stdout
    assert "3 failed" in done.stdout
    assert "Traceback" not in done.stdout


def test_what_cannot_be_closed_fails_the_run(project):
    filters = FILTERS.replace(
        "        pathlib.Path(__file__).with_name",
        "        raise OSError(5); pathlib.Path(__file__).with_name",
    )
    done = project({"filters/limit.py": filters, "filters/a.cases.yaml": CASES}, "-k", "passes")
    assert done.returncode == 1
    assert "filters: a filter's close() raised OSError: 5" in done.stdout


def test_it_costs_nothing_where_it_is_not_used(project):
    done = project(
        {
            "cases.yaml": "a: [",
            "test_a.py": """
                import sys

                def test_a():
                    loaded = {"yaml", "uvloop", "grpc", "msgpack", "bridge.pipeline", "bridge.testing.cases"}
                    assert not loaded & set(sys.modules)
            """,
        }
    )
    assert "1 passed" in done.stdout
    assert "fluent-bridge-" in done.stdout  # among the plugins
