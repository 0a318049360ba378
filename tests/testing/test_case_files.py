"""Cases run as the command runs them: what passes, and what is said of what does not."""

import re
import textwrap

import pytest

from bridge.testing import cases, verdict
from bridge.testing.harnesses import Harnesses

FILTERS = """
    class View(msgspec.Struct):
        price: float

    @bridge.filter("typed")
    def typed(view: View) -> bool:
        return view.price > 0

    @bridge.filter("act")
    def act(event: bridge.Event):
        record = event.record
        match record["do"]:
            case "drop":
                return None
            case "reject":
                raise bridge.Reject("not wanted: " + record.get("why", "nothing"))
            case "retry":
                raise bridge.Retry(2.5)
            case "later":
                event.time = bridge.EventTime(1, 2)
            case "several":
                return [{"n": 1}, bridge.Event("other", event.time, {"n": 2}), {"n": 3}]
            case "change":
                record["items"][1]["price"] = 2
                record["new"] = True
                del record["old"]
        return event

    @bridge.batch("batch")
    def sums(records: list[dict]):
        return [{"sum": sum(one["n"] for one in records)}, *[None] * (len(records) - 1)]

    @bridge.filter("async", concurrency=2)
    async def later(record: dict) -> dict:
        await asyncio.sleep(0)
        return record | {"later": True}

    @bridge.filter("class")
    class Limit:
        def __init__(self, most=1):
            self.most = most
        def __call__(self, record: dict) -> bool:
            return record["n"] <= self.most
"""

PASSING = """
    parameters: {Limit: {most: 5}}
    cases:
      - {name: a typed view, tag: typed, input: {price: 2}, unchanged: true}
      - {tag: typed, input: {price: -2.5}, drop: true}
      - {name: a typed view that does not fit, tag: typed, input: {price: high},
         reject: {class: ValidationError, message: "Expected `float`, got `str`", filter: typed}}
      - {name: reject, tag: act, input: {do: reject, why: a}, reject: "wanted: a"}
      - {name: reject in full, tag: act, input: {do: reject},
         reject: {class: Reject, message: nothing, filter: act}}
      - {name: an exception, tag: act, input: {}, reject: "KeyError: 'do'"}
      - {name: retry, tag: act, input: {do: retry}, retry: true}
      - {name: the time, tag: act, time: 2026-05-06T00:00:00.000000001Z, input: {do: later},
         output: {time: 1.000000002, record: {do: later}}}
      - name: several outputs, some under another tag
        tag: act
        input: {do: several}
        output: [{tag: other, record: {n: 2}}, {n: 1}, {n: 3}]
      - name: a batch
        tag: batch
        input: [{n: 1}, {time: 5, record: {n: 2.5}}]
        output: {sum: 3.5}
      - name: some of a batch pass
        tag: act
        input: [{do: drop}, {do: reject, why: a}, {do: reject, why: b}, {do: x}]
        output: {do: x}
        reject: ["wanted: b", {message: a}]
      - {name: async, tag: async, input: [{n: 1}, {n: 2}],
         output: [{n: 1, later: true}, {n: 2, later: true}]}
      - {name: a class with parameters, tag: class, input: {n: 5}, unchanged: true}
      - {name: no filter, tag: else, input: {x: !!binary aGk=, y: .nan, z: null}, unchanged: true}
"""


def failures(folder, *, sidecar=False):
    """Return what is said of each case that fails, by its name."""
    harnesses = Harnesses(sidecar=sidecar)
    said = {}
    try:
        for file in cases.read_all(cases.find(folder)):
            for case in file.cases:
                if lines := verdict.run(case, harnesses.get(file)):
                    said[case.name] = "\n".join(lines)
    finally:
        assert harnesses.close() == []
    return said


@pytest.mark.parametrize("sidecar", [False, True])
def test_each_kind_of_case_passes_in_process_and_through_a_sidecar(folder, sidecar):
    assert failures(folder(FILTERS, PASSING), sidecar=sidecar) == {}


def test_documents_in_a_field(folder):
    path = folder(
        """
        @bridge.filter("a")
        def price(record: dict) -> dict:
            record["price"] *= 2
            return record
        """,
        """
        payload: json
        payload_key: log
        cases:
          - {name: passes, tag: a, input: {price: 1}, output: {price: 2}}
          - {name: no JSON, tag: a, input: '{"price": ', reject: NotJson}
          - {name: fails, tag: a, input: '{"price": 1}', output: {price: 3}}
        """,
    )
    assert list(failures(path)) == ["fails"]


# A case → what is said of it, which is all that is said.
FAILING = {
    "{name: f, tag: act, input: {do: change, old: 1, items: [{price: 1}, {price: 1}]},\n"
    "     output: {do: change, old: 1,\n"
    "              items: [{price: 1}, {price: 1}]}}": """
        an event under act:
          old (line 3)
            - expected  1
            + got       nothing
          items[1].price (line 4)
            - expected  1
            + got       2
          new
            - expected  nothing
            + got       true
        """,
    "{name: f, tag: act, input: {do: x, a.b: true, n: 1, s: é},\n"
    '     output: {do: x, a.b: 1, n: "1", s: è}}': """
        an event under act:
          "a.b" (line 3)
            - expected  1
            + got       true
          n (line 3)
            - expected  "1"
            + got       1
          s (line 3)
            - expected  "è"
            + got       "é"
        """,
    "{name: f, tag: act, input: {do: later}, unchanged: true}": """
        an event under act:
          (time)
            - expected  "2026-01-01T00:00:00.000000000Z"
            + got       "1970-01-01T00:00:01.000000002Z"
        """,
    "{name: f, tag: act, input: {do: several}, output: [{n: 1}, {n: 2}, {n: 3}]}": """
        line 2: did not come out under act: {"n": 2}
        came out under other, and should not: {"n": 2}
        """,
    "{name: f, tag: act, input: {do: x}, drop: true}": """
        came out under act, and should not: {"do": "x"}
        """,
    "{name: f, tag: act, input: {do: drop}, unchanged: true}": """
        line 2: did not come out under act: {"do": "drop"}
        dropped: 1 of 1
        """,
    "{name: f, tag: act, input: {do: x}, reject: not wanted}": """
        came out under act, and should not: {"do": "x"}
        line 2: not rejected, and an event should be: a reason that holds "not wanted"
        """,
    "{name: f, tag: act, input: [{do: drop}, {do: drop}], reject: {class: A, filter: b}}": """
        line 2: not rejected, and 2 events should be: class: A, filter: b
        dropped: 2 of 2
        """,
    "{name: f, tag: act, input: {do: reject}, reject: too cheap}": """
        rejected for another reason (line 2):
          - expected  a reason that holds "too cheap"
          + got       act: Reject: not wanted: nothing
        """,
    "{name: f, tag: act, input: {did: x}, output: {did: x}}": """
        line 2: did not come out under act: {"did": "x"}
        rejected, and should not be, by act: KeyError: 'do'
          the event: {"did": "x"}
            Traceback (most recent call last):
              File "FOLDER/10_filters.py", line 15, in act
                match record["do"]:
                      ~~~~~~^^^^^^
        """,
    "{name: f, tag: act, input: {do: retry}, drop: true}": """
        a filter raised bridge.Retry (the chunk is to come again after 2.5 s); if it should, the case wants `retry: true`
        """,
    "{name: f, tag: act, input: [{do: x}, {do: drop}, {do: reject}], retry: true}": """
        no filter raised bridge.Retry: 1 came out, 1 dropped, 1 rejected
        """,
}


@pytest.mark.parametrize("case", FAILING)
def test_what_is_said_of_a_case_that_fails(folder, case):
    path = folder(FILTERS)
    (path / "some.cases.yaml").write_text(f"cases:\n  - {case}\n")
    wanted = textwrap.dedent(FAILING[case]).strip("\n")
    assert failures(path)["f"].replace(str(path), "FOLDER") == wanted


def test_a_long_text_is_shown_where_it_differs(folder):
    path = folder(FILTERS)
    text, other = "a" * 500 + "b" * 500, "a" * 500 + "c" * 500
    (path / "some.cases.yaml").write_text(
        f"cases: [{{name: f, tag: else, input: {{x: {text}}}, output: {{x: {other}}}}}]\n"
    )
    expected, got = re.findall(r"(?:expected|got) +(…a{40}[bc]+…)", failures(path)["f"])
    assert set(expected) == {*"…ac"}
    assert set(got) == {*"…ab"}
    assert len(expected) < 170


def test_of_a_long_list_only_what_differs_is_shown(folder):
    path = folder(FILTERS)
    records = [f"{{n: {n}}}" for n in range(30)]
    wanted = [*records[:10], "{n: 100}", *records[12:]]
    (path / "some.cases.yaml").write_text(
        f"cases: [{{name: f, tag: else, input: [{', '.join(records)}], output: [{', '.join(wanted)}]}}]\n"
    )
    said = failures(path)["f"]
    assert "- expected  100\n" in said
    assert said.endswith('came out under else, and should not: {"n": 11}')
    assert len(said.splitlines()) == 5


def test_a_record_with_many_differences_is_cut(folder):
    path = folder(FILTERS)
    record = ", ".join(f"k{n:02}x: 1" for n in range(50))
    (path / "some.cases.yaml").write_text(
        f"cases: [{{name: f, tag: else, input: {{{record}}}, output: {{{record.replace(' 1', ' 2')}}}}}]\n"
    )
    assert failures(path)["f"].endswith("... and 30 more that differ")
