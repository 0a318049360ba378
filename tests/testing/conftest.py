"""Folders of filters and case files, written by a test."""

import textwrap

import pytest

HEAD = "import asyncio\nimport msgspec\nimport bridge\n"


@pytest.fixture
def folder(tmp_path):
    """Return a function that writes files into a folder: filters, and cases if any."""

    def write(filters, cases=None, *, name="filters"):
        path = tmp_path / name
        path.mkdir(exist_ok=True)
        (path / "10_filters.py").write_text(HEAD + textwrap.dedent(filters))
        if cases is not None:
            (path / "some.cases.yaml").write_text(textwrap.dedent(cases).lstrip("\n"))
        return path

    return write
