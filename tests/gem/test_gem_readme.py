"""The gem's README against its code."""

import re

from gem_pipeline import GEM

README = (GEM / "README.md").read_text()
SOURCES = "".join(file.read_text() for file in sorted(GEM.glob("lib/fluent/plugin/**/*.rb")))


def test_every_parameter_is_in_the_readme():
    parameters = re.findall(r"config_param :(\w+)", SOURCES)
    assert len(parameters) > 50
    assert [name for name in parameters if f"`{name}`" not in README] == []


def test_the_readme_names_no_parameter_that_is_not_there():
    known = {*re.findall(r"config_param :(\w+)", SOURCES), *re.findall(r"alias: :(\w+)", SOURCES)}
    rows = re.findall(r"^\| (`[a-z].*?) \|", README, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    assert named - known == set()
