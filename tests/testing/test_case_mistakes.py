"""What is wrong in a case file: the mistake, its line, and what to do. Rules: docs/cases.md."""

import re
import textwrap
from pathlib import Path

import pytest
import yaml

from bridge.errors import LoadError
from bridge.testing import case_reader, cases

CASE = "cases:\n  - tag: a\n    input: {x: 1}\n"

# The text of a file → the line of each mistake, and what is said of it.
MISTAKES = {
    # Not a case file at all.
    "": [(0, "it is empty: write cases, as in `cases: [{tag: ad.click,")],
    "# nothing\n": [(0, "it is empty")],
    "- a\n": [(1, "a case file is a map with the keys payload, payload_key, parameters, cases")],
    "cases: [a\n": [(2, "it is not YAML: while parsing a flow sequence")],
    "cases:\n\t- a\n": [(2, "cannot start any token; correct this line")],
    "cases: []\n--- \ncases: []\n": [(2, "it is not YAML: expected a single document")],
    "payload: raw\n": [(1, "there are no cases: write a list, as in `cases: [{tag:")],
    "cases: []\n": [(1, "there are no cases")],
    "cases: {tag: a}\n": [(1, "there are no cases")],
    # Keys.
    f"payloads: raw\n{CASE}    drop: true\n": [
        (1, "a case file has no key 'payloads'; did you mean 'payload'?")
    ],
    f"{CASE}    ouput: {{x: 1}}\n    drop: true\n": [
        (4, "a case has no key 'ouput'; did you mean 'output'?")
    ],
    f"{CASE}    expectation: 1\n    drop: true\n": [
        (4, "no key 'expectation'; its keys are name, tag, time, input, output,")
    ],
    f"{CASE}    drop: true\n    tag: b\n": [
        (5, "the key 'tag' is there already, in line 2: remove one")
    ],
    f"{CASE}    drop: true\n    ? [a]\n    : b\n": [(5, "a key is to be a text, not a list")],
    "cases: [a]\n": [(1, "a case is a map with the keys name, tag,")],
    # The head.
    f"payload: jsno\n{CASE}    drop: true\n": [(1, "payload is raw or json, not 'jsno'")],
    f"payload_key: [a]\n{CASE}    drop: true\n": [(1, "payload_key is to be a text, not a list")],
    f"parameters: [a]\n{CASE}    drop: true\n": [(1, "parameters are a map of filters' names")],
    f"parameters: {{limit: 1}}\n{CASE}    drop: true\n": [
        (1, "as in `parameters: {Score: {limit: 1}}`")
    ],
    # What goes in.
    "cases:\n  - input: {x: 1}\n    drop: true\n": [(2, "the case has no tag: say what goes in")],
    "cases:\n  - tag: a\n    drop: true\n": [(2, "the case has no input: say what goes in")],
    "cases:\n  - tag: 5\n    input: {}\n    drop: true\n": [
        (2, "tag is to be a text, not 5; put it in quotes")
    ],
    "cases:\n  - tag:\n    input: {}\n    drop: true\n": [(2, "tag is to be a text, not nothing")],
    "cases:\n  - tag: a\n    input: x\n    drop: true\n": [
        (3, "an event of the input is a map: write its record")
    ],
    "cases:\n  - tag: a\n    input: [{x: 1},\n      3]\n    drop: true\n": [
        (4, "an event of the input is a map")
    ],
    "cases:\n  - tag: a\n    input: []\n    drop: true\n": [
        (3, "the input is an empty list: a chunk has at least one event")
    ],
    "cases:\n  - tag: a\n    input:\n      tag: b\n      record: {}\n    drop: true\n": [
        (4, "an event of the input has no tag of its own: a chunk has one tag")
    ],
    "payload: json\ncases:\n  - tag: a\n    input: 3\n    drop: true\n": [
        (4, "an event of the input is a map, or a text with payload json")
    ],
    f"{CASE}    time: yesterday\n    drop: true\n": [
        (4, "a time is seconds since 1970, as in 1767225600.5, or a text in UTC")
    ],
    f"{CASE}    time: 2026-01-01T00:00:00\n    drop: true\n": [(4, "a time is seconds since")],
    f"{CASE}    time: -1\n    drop: true\n": [(4, "a time is seconds since")],
    f"{CASE}    time: 5000000000\n    drop: true\n": [(4, "a time is seconds since")],
    f"{CASE}    time: .nan\n    drop: true\n": [(4, "a time is seconds since")],
    # What must come out.
    CASE: [(2, "the case does not say what must happen: give it output, unchanged: true,")],
    f"{CASE}    drop: true\n    output: {{x: 1}}\n": [
        (4, "the case has output and drop: keep one")
    ],
    f"{CASE}    reject: a\n    output: {{x: 1}}\n": [
        (4, "keep one; output and reject may stand together where the input is a list")
    ],
    f"{CASE}    drop: yes\n": [(4, "drop is true or it is not there: write `drop: true`")],
    f"{CASE}    retry: false\n": [(4, "retry is true or it is not there")],
    f"{CASE}    unchanged: 1\n": [(4, "unchanged is true or it is not there")],
    f"{CASE}    output: []\n": [(4, "if nothing is to come out, write `drop: true`")],
    f"{CASE}    output: text\n": [(4, "an event of the output is a map: write its record")],
    f"{CASE}    output: {{tag: 5, record: {{}}}}\n": [(4, "tag is to be a text, not 5")],
    f"{CASE}    output: {{time: x, record: {{}}}}\n": [(4, "a time is seconds since 1970")],
    f"{CASE}    reject: 5\n": [(4, "the reason to reject is to be a text, not 5; put it in")],
    f"{CASE}    reject: []\n": [(4, "reject is an empty list: leave it out, or give reasons")],
    f"{CASE}    reject: {{}}\n": [(4, "the reason is empty: give it class, message, filter")],
    f"{CASE}    reject: {{klass: A}}\n": [
        (4, "the reason to reject has no key 'klass'; did you mean 'class'?")
    ],
    f"{CASE}    reject: it holds a: b\n": [
        (4, "it is not YAML: mapping values are not allowed in this context; put a text that holds")
    ],
    f"{CASE}    reject:\n      - it holds a: b\n": [
        (5, "is a map with the key 'it holds a': put the whole text in quotes")
    ],
    "cases:\n  - tag: a\n    input: [{}]\n    output: {}\n    reject: a\n": [
        (5, "beside output, reject is a list with one reason for each rejected event")
    ],
    # Names.
    f"{CASE}    drop: true\n    name: 5\n": [(5, "name is to be a text, not 5")],
    "cases:\n"
    "  - {name: x, tag: a, input: {}, drop: true}\n"
    "  - {name: x, tag: a, input: {}, drop: true}\n": [
        (3, "there is a case 'x' already, in line 2: give this one another name")
    ],
    # Values that no record holds.
    f"{CASE}    output: {{x: 18446744073709551616}}\n": [
        (4, "18446744073709551616 has more than 64 bits, which no record holds")
    ],
    f"{CASE}    output: {{x: !!int a}}\n": [(4, "'a' is no !!int")],
    f"{CASE}    output: {{x: !!binary '?'}}\n": [(4, "'?' is no !!binary")],
    f"{CASE}    output: {{x: !!timestamp 2026-01-01}}\n": [
        (4, "the type !!timestamp is unknown: a record holds texts, numbers,")
    ],
    f"{CASE}    output: {{x: !money 5}}\n": [(4, "the type !money is unknown")],
    f"{CASE}    output: {{x: !!set {{a}}}}\n": [(4, "the type !!set is unknown")],
    f"{CASE}    output: {{x: &a [*a]}}\n": [(4, "it holds itself by an alias")],
    f"{CASE}    output: {{<<: 5}}\n": [(4, "<< takes a map, or a list of maps")],
    f"payload: json\n{CASE}    output: {{x: .inf}}\n": [(5, ".inf is no number to JSON")],
    f"payload: json\n{CASE}    output: {{x: !!binary aGk=}}\n": [(5, "JSON has no !!binary")],
    # All at once.
    "payload: x\ncases:\n"
    "  - {tga: a, input: {}, drop: true}\n"
    "  - {tag: a, input: 1, outptu: 2}\n": [
        (1, "payload is raw or json"),
        (3, "no key 'tga'; did you mean 'tag'?"),
        (3, "the case has no tag"),
        (4, "no key 'outptu'; did you mean 'output'?"),
        (4, "an event of the input is a map"),
        (4, "the case does not say what must happen"),
    ],
}


def mistakes(file):
    with pytest.raises(ExceptionGroup) as raised:
        cases.read(file)
    assert all(type(error) is LoadError for error in raised.value.exceptions)
    return list(raised.value.exceptions)


@pytest.mark.parametrize("text", MISTAKES, ids=lambda text: repr(text)[:60])
def test_each_mistake_has_its_line_and_says_what_to_do(tmp_path, text):
    file = tmp_path / "a.cases.yaml"
    file.write_text(text)
    found = mistakes(file)
    assert [one.line for one in found] == [line for line, _ in MISTAKES[text]], found
    for one, (line, message) in zip(found, MISTAKES[text], strict=True):
        assert message in str(one)
        assert str(one).startswith(f"{file}:{line}: " if line else f"{file}: ")


def test_a_file_that_cannot_be_read(tmp_path):
    (one,) = mistakes(tmp_path / "no.cases.yaml")
    assert one.message == "cannot be read: No such file or directory"
    (tmp_path / "bytes.cases.yaml").write_bytes(b"cases: \xff\xfe\n")
    (one,) = mistakes(tmp_path / "bytes.cases.yaml")
    assert one.message.startswith("it is not YAML: ")


def test_the_mistakes_of_all_files_are_found_at_once(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.cases.yaml").write_text(
            "" if name != "b" else f"{CASE}    drop: true\n"
        )
    with pytest.raises(ExceptionGroup) as raised:
        cases.read_all(cases.find(tmp_path))
    assert [one.file.name for one in raised.value.exceptions] == ["a.cases.yaml", "c.cases.yaml"]


# A plain scalar in a file → what a record gets.
VALUES = {
    "true": True,
    "True": True,
    "false": False,
    "null": None,
    "~": None,
    "": None,
    "no": "no",
    "NO": "NO",
    "on": "on",
    "y": "y",
    "1": 1,
    "-1": -1,
    "18446744073709551615": 2**64 - 1,
    "-9223372036854775808": -(2**63),
    "0": 0,
    "01234": "01234",
    "+49": "+49",
    "0x1F": "0x1F",
    "0o17": "0o17",
    "1_000": "1_000",
    "12:30:00": "12:30:00",
    "2026-01-02": "2026-01-02",
    "2026-01-02T03:04:05Z": "2026-01-02T03:04:05Z",
    "1.0": 1.0,
    "1e3": 1000.0,
    "-2.5E-1": -0.25,
    ".5": ".5",
    "1.": "1.",
    "1.2.3": "1.2.3",
    ".inf": float("inf"),
    "-.inf": float("-inf"),
    "=": "=",
    "'1'": "1",
    '"true"': "true",
    '"\\u00e9"': "é",
    "!!str 1": "1",
    "!!float 1": 1.0,
    "!!binary aGk=": b"hi",
    "[1, [no]]": [1, ["no"]],
    "{1: a, no: b, ~: c}": {"1": "a", "no": "b", "~": "c"},
}


@pytest.mark.parametrize("text", VALUES)
def test_values_are_jsons(tmp_path, text):
    file = tmp_path / "a.cases.yaml"
    file.write_text(f"cases:\n  - tag: a\n    input:\n      x: {text}\n    drop: true\n")
    (case,) = cases.read(file).cases
    value = case.given[0].record["x"]
    assert (type(value), value) == (type(VALUES[text]), VALUES[text])


def test_parameters_are_as_in_a_file_of_settings(tmp_path):
    file = tmp_path / "a.cases.yaml"
    text = "{Score: {on: yes, size: 1_000, name: 'no', at: 0x10}}"
    file.write_text(f"parameters: {text}\n{CASE}    drop: true\n")
    values = yaml.safe_load("[yes, 1_000, 'no', 0x10]")
    assert list(cases.read(file).parameters["Score"].values()) == values


def test_aliases_and_merges(tmp_path):
    file = tmp_path / "a.cases.yaml"
    file.write_text(
        textwrap.dedent("""
        cases:
          - &first
            tag: a
            input: &record {x: 1, y: 2}
            output: *record
          - <<: *first
            name: the second
            input: {<<: [*record, {x: 5, z: 3}], y: 4}
        """)
    )
    first, second = cases.read(file).cases
    assert first.given[0].record == first.wanted[0].record == {"x": 1, "y": 2}
    assert second.given[0].record == {"x": 1, "y": 4, "z": 3}
    assert (first.name, second.name) == ("line 3", "the second")


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("1767225600.123456789", (1767225600, 123456789)),
        ("0", (0, 0)),
        ("2026-01-02T03:04:05.5Z", (1767323045, 500000000)),
        ("4294967295.999999999", (4294967295, 999999999)),
        ("1.5e9", (1500000000, 0)),
    ],
)
def test_times_keep_their_nanoseconds(tmp_path, text, time):
    file = tmp_path / "a.cases.yaml"
    file.write_text(f"{CASE}    time: {text}\n    drop: true\n")
    (case,) = cases.read(file).cases
    assert case.given[0].time == time


def test_the_example_in_the_documentation_is_a_case_file(tmp_path):
    document = (Path(__file__).parents[2] / "docs" / "cases.md").read_text()
    example = re.search(r"```yaml\n(.*?)```", document, re.DOTALL)[1]
    (tmp_path / "a.cases.yaml").write_text(example)
    assert len(cases.read(tmp_path / "a.cases.yaml").cases) == 7
    for key in (*cases._KEYS, *case_reader.INPUT_KEYS, *case_reader.OUTCOME_KEYS):
        assert re.search(rf"^\| `{key}(: true)?` \|", document, re.MULTILINE), key


def test_case_files_are_found_folder_by_folder_and_hidden_ones_are_not(tmp_path):
    for name in ("b.cases.yaml", "a/x.cases.yaml", "a.cases.yaml", ".venv/y.cases.yaml", "c.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(file.relative_to(tmp_path)) for file in cases.find(tmp_path)]
    assert found == ["a.cases.yaml", "b.cases.yaml", "a/x.cases.yaml"]
    assert cases.find(tmp_path / "c.yaml") == [tmp_path / "c.yaml"]
    with pytest.raises(LoadError, match="there is no such folder or file"):
        cases.find(tmp_path / "d")
