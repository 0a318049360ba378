"""What loads, and what is refused: the mistake, its line, and what to do."""

import textwrap
from pathlib import Path

import pytest

import bridge
from bridge.errors import LoadError
from bridge.loading import load

HEAD = "import bridge\nimport msgspec\n"  # the sources below begin in line 3


def write(folder, name, source):
    path = folder / name
    path.write_text(HEAD + textwrap.dedent(source).lstrip("\n"))
    return path


def mistakes(folder, parameters=None):
    with pytest.raises(ExceptionGroup) as raised:
        load(folder, parameters)
    assert all(type(error) is LoadError for error in raised.value.exceptions)
    return list(raised.value.exceptions)


def kinds(folder):
    return {
        one.name: (one.kind, one.batch, one.asynchronous, one.predicate)
        for one in load(folder).filters
    }


def test_kinds_come_from_annotations(tmp_path):
    write(
        tmp_path,
        "a.py",
        """
        from collections.abc import Mapping
        from dataclasses import dataclass
        from typing import Annotated, Any, TypedDict

        Record = dict[str, Any]
        class Click(msgspec.Struct):
            price: float
        @dataclass
        class View:
            price: float
        class Typed(TypedDict):
            price: float

        @bridge.filter("a")
        def bare(record): return record
        @bridge.filter("a")
        def plain(record: dict) -> bool: return True
        @bridge.filter("a")
        def mapping(record: Mapping[str, Any], table={}): return None
        @bridge.filter("a")
        def alias(record: Record): return record
        @bridge.filter("a")
        def annotated(record: Annotated[dict, "x"]): return record
        @bridge.filter("a")
        def event(event: bridge.Event) -> bridge.Event: return event
        @bridge.filter("a")
        def struct(click: Click) -> bool: return True
        @bridge.filter("a")
        def dataclass_(view: View) -> "bool": return True
        @bridge.filter("a")
        def typed(view: Typed): return None
        @bridge.filter("a", concurrency=3)
        async def asynchronous(record): return record
        @bridge.batch("a")
        def batch(records): return records
        @bridge.batch("a", name="named")
        async def batch_of_events(events: list[bridge.Event]) -> list[bool]: return []
        @bridge.batch("a")
        def batch_of_views(events: "list[Click]"): return []
        @bridge.filter("a")
        def star(*record: dict): return None
        """,
    )
    record, view = ("record", False, False, False), ("view", False, False)
    assert kinds(tmp_path) == {
        "bare": record,
        "plain": ("record", False, False, True),
        "mapping": record,
        "alias": record,
        "annotated": record,
        "event": ("event", False, False, False),
        "struct": (*view, True),
        "dataclass_": (*view, True),
        "typed": (*view, False),
        "asynchronous": ("record", False, True, False),
        "batch": ("record", True, False, False),
        "named": ("event", True, True, True),
        "batch_of_views": ("view", True, False, False),
        "star": record,
    }


def test_annotations_that_are_text(tmp_path):
    (tmp_path / "a.py").write_text(
        textwrap.dedent("""
        from __future__ import annotations
        from typing import TYPE_CHECKING
        import msgspec
        import bridge
        if TYPE_CHECKING:
            from collections.abc import Iterator, Mapping

        class Node(msgspec.Struct):
            name: str
            below: list[Node] = []

        @bridge.filter("a")
        def split(record: Mapping[str, Any]) -> Iterator[dict]: yield record
        @bridge.filter("a")
        def node(node: Node) -> bool: return True
        @bridge.filter("a")
        def event(event: bridge.Event) -> bridge.Event: return event
        """)
    )
    assert kinds(tmp_path) == {
        "split": ("record", False, False, False),
        "node": ("view", False, False, True),
        "event": ("event", False, False, False),
    }


def test_the_decorator_returns_what_it_stands_on():
    def function(record: dict) -> dict:
        return record

    assert bridge.filter("a")(function) is function
    assert bridge.batch("a")(function) is function


def test_files_in_name_order_without_those_that_are_no_filters(tmp_path):
    source = '@bridge.filter("a")\ndef {}(record: dict): return record\n'
    for name in ("20_b", "10_z", "_shared", ".hidden", "test_x", "conftest", "30_c"):
        write(tmp_path, f"{name}.py", source.format("f" + name.strip("._")))
    (tmp_path / "10_z.cases.yaml").write_text("no: python")
    (tmp_path / "folder.py").mkdir()
    registry = load(tmp_path)
    assert [one.name for one in registry.filters] == ["f10_z", "f20_b", "f30_c"]
    assert [one.file.name for one in registry.filters] == ["10_z.py", "20_b.py", "30_c.py"]
    assert registry.filters[0].line == 3
    assert [one.name for one in load(tmp_path / "20_b.py").filters] == ["f20_b"]


def test_each_load_is_fresh_and_sees_the_folder_beside_it(tmp_path):
    for name, value in (("one", 1), ("two", 2)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "_shared.py").write_text(f"VALUE = {value}")
        write(
            folder,
            "a.py",
            """
            from _shared import VALUE
            @bridge.filter("a")
            def f(record: dict): return {"value": VALUE}
            """,
        )
    for name, value in (("one", 1), ("two", 2), ("one", 1)):
        (f,) = load(tmp_path / name).filters
        assert f.function({}) == {"value": value}
    for value in (3, 4):  # within one second, and of the same size
        (tmp_path / "one" / "_shared.py").write_text("VALUE = 1")
        write(tmp_path / "one", "a.py", f'@bridge.filter("a")\ndef f(r): return {value}\n')
        assert load(tmp_path / "one").filters[0].function({}) == value


def test_a_config_map_is_loaded_through_its_links_once(tmp_path):
    data = tmp_path / "..2026_11_22"
    data.mkdir()
    write(data, "10_a.py", '@bridge.filter("a")\ndef f(record: dict): return record\n')
    (tmp_path / "..data").symlink_to(data.name)
    (tmp_path / "10_a.py").symlink_to("..data/10_a.py")
    (tmp_path / "20_same.py").symlink_to("10_a.py")
    assert [one.file.name for one in load(tmp_path).filters] == ["10_a.py"]


def test_a_class_gets_its_parameters(tmp_path):
    write(
        tmp_path,
        "a.py",
        """
        @bridge.filter("a", name="lookup")
        class Lookup:
            def __init__(self, path, size=1):
                self.path, self.size, self.closed = path, size, False
            async def __call__(self, event: bridge.Event):
                return event
            def close(self):
                self.closed = True
        """,
    )
    (lookup,) = load(tmp_path, {"lookup": {"path": "/x"}}).filters
    assert (lookup.function.path, lookup.function.size) == ("/x", 1)
    assert (lookup.kind, lookup.asynchronous) == ("event", True)
    lookup.close()
    assert lookup.function.closed


GOOD = '@bridge.filter("a")\ndef good(record: dict): return record\n'
PARAMETERS = {"f": {"path": "/x"}}
REFUSED = {
    # name: source, parameters, line, what is said
    "no parentheses": ("@bridge.filter\ndef f(r): ...", {}, 3, ['@bridge.filter("ad.**")']),
    "batch without": ("@bridge.batch\ndef f(r): ...", {}, 3, ['@bridge.batch("ad.**")']),
    "empty parentheses": ("@bridge.filter()\ndef f(r): ...", {}, 3, ["missing", "pattern"]),
    "pattern is a list": ('@bridge.filter(["a"])\ndef f(r): ...', {}, 3, ["'list' object"]),
    "bad pattern": ('@bridge.filter("a.{b")\ndef f(r): ...', {}, 3, ["f: ", "brace", "close"]),
    "empty pattern": ('@bridge.filter("")\ndef f(r): ...', {}, 3, ["every tag"]),
    "not a function": ('bridge.filter("a")(5)', {}, 3, ["stands on a int", "a function or"]),
    "staticmethod": (
        'class A:\n    @bridge.filter("a")\n    @staticmethod\n    def f(r): ...',
        {},
        4,
        ["stands on a staticmethod", "below @staticmethod"],
    ),
    "empty name": ('@bridge.filter("a", name="")\ndef f(r): ...', {}, 3, ["is not a name"]),
    "no parameter": ('@bridge.filter("a")\ndef f(): ...', {}, 3, ["takes ()", "(record)"]),
    "two": (
        '@bridge.filter("a")\ndef f(r, s): ...',
        {},
        3,
        ["takes (r, s)", "class with __init__"],
    ),
    "keyword only": ('@bridge.filter("a")\ndef f(*, r): ...', {}, 3, ["takes (r)", "(record)"]),
    "int": ('@bridge.filter("a")\ndef f(r: int): ...', {}, 3, ["'r' is annotated int", "dict"]),
    "union": (
        '@bridge.filter("a")\ndef f(r: dict | None): ...',
        {},
        3,
        ["dict | None", "bridge.Event"],
    ),
    "list": ('@bridge.filter("a")\ndef f(r: list[dict]): ...', {}, 3, ["@bridge.batch gives all"]),
    "batch of one": ('@bridge.batch("a")\ndef f(r: dict): ...', {}, 3, ["annotate it list[dict]"]),
    "batch of int": ('@bridge.batch("a")\ndef f(r: list[int]): ...', {}, 3, ["annotated int"]),
    "batch generator": (
        '@bridge.batch("a")\ndef f(r): yield 1',
        {},
        3,
        ["one result an event, returned"],
    ),
    "unresolved": (
        '@bridge.filter("a")\ndef f(r: "Missing"): ...',
        {},
        3,
        ["'Missing' is not defined", "TYPE_CHECKING"],
    ),
    "async generator": (
        '@bridge.filter("a")\nasync def f(r):\n    yield r',
        {},
        3,
        ["async generator", "returns a list"],
    ),
    "view with a strange field": (
        'class O: ...\nclass V(msgspec.Struct):\n    o: O\n@bridge.filter("a")\ndef f(v: V): ...',
        {},
        6,
        ["V has a field of type O", "dataclass"],
    ),
    "view with an unresolved field": (
        'class V(msgspec.Struct):\n    o: "Missing"\n@bridge.filter("a")\ndef f(v: V): ...',
        {},
        5,
        ["'Missing' is not defined"],
    ),
    "array_like": (
        'class V(msgspec.Struct, array_like=True):\n    o: int\n@bridge.filter("a")\ndef f(v: V): ...',
        {},
        5,
        ["remove array_like"],
    ),
    "class without __call__": (
        '@bridge.filter("a")\nclass f: ...',
        {},
        3,
        ["__call__(self, record)"],
    ),
    "__call__ of two": (
        '@bridge.filter("a")\nclass f:\n    def __call__(self, a, b): ...',
        {},
        3,
        ["takes (self, a, b)", "(self, record)"],
    ),
    "concurrency of a def": (
        '@bridge.filter("a", concurrency=4)\ndef f(r): ...',
        {},
        3,
        ["concurrency is for async def"],
    ),
    "concurrency of none": (
        '@bridge.filter("a", concurrency=0)\nasync def f(r): ...',
        {},
        3,
        ["above 0"],
    ),
    "parameters for a function": (
        '@bridge.filter("a")\ndef f(r): ...',
        PARAMETERS,
        3,
        ["make it a class", "path"],
    ),
    "parameter unknown": (
        '@bridge.filter("a")\nclass f:\n    def __init__(self, paths): ...\n    def __call__(self, r): ...',
        PARAMETERS,
        3,
        ["'path'", "did you mean 'paths'"],
    ),
    "parameter missing": (
        '@bridge.filter("a")\nclass f:\n    def __init__(self, path): ...\n    def __call__(self, r): ...',
        {},
        3,
        ["missing a required argument: 'path'", "set them under the filter's name 'f'"],
    ),
    "no __init__": (
        '@bridge.filter("a")\nclass f:\n    def __call__(self, r): ...',
        PARAMETERS,
        3,
        ["takes nothing"],
    ),
    "__init__ raises": (
        (
            '@bridge.filter("a")\nclass f:\n    def __init__(self):\n        open("/no/such/file")\n'
            "    def __call__(self, r): ..."
        ),
        {},
        6,
        ["f: its __init__ raised FileNotFoundError", "/no/such/file"],
    ),
    "syntax": ("def f(:\n    pass", {}, 3, ["not Python", "correct this line"]),
    "raises at import": ("def g():\n    return 1 / 0\ng()", {}, 4, ["ZeroDivisionError"]),
    "a bad metric": ('c = bridge.counter("a-b", "x")', {}, 3, ["'a-b' is no name to Prometheus"]),
    "missing module": ("import no_such_module", {}, 3, ["no_such_module", "install it"]),
    "exits": ("raise SystemExit(3)", {}, 3, ["must not end"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_file_line_and_what_to_do(tmp_path, case):
    source, parameters, line, says = REFUSED[case]
    path = write(tmp_path, "10_f.py", source)
    (mistake,) = mistakes(tmp_path, parameters)
    assert (mistake.file, mistake.line) == (path, line)
    assert str(mistake).startswith(f"{path}:{line}: ")
    for said in says:
        assert said in mistake.message


def test_two_of_one_name(tmp_path):
    first = write(tmp_path, "10_a.py", GOOD)
    second = write(tmp_path, "20_b.py", GOOD)
    (mistake,) = mistakes(tmp_path)
    assert (mistake.file, mistake.line) == (second, 3)
    assert f"{first}:3" in mistake.message
    assert 'name="..."' in mistake.message


def test_parameters_for_no_filter(tmp_path):
    write(tmp_path, "a.py", GOOD)
    near, far = mistakes(tmp_path, {"god": {}, "entirely_different": {}})
    assert "did you mean 'good'?" in near.message
    assert "the filters are good" in far.message


def test_nothing_to_load(tmp_path):
    (mistake,) = mistakes(tmp_path)
    assert mistake.file == tmp_path
    assert "filters.path" in mistake.message
    (mistake,) = mistakes(tmp_path / "missing")
    assert "No such file" in mistake.message
    assert "filters.path" in mistake.message


def test_a_mistake_in_a_shared_module_is_shown_there(tmp_path):
    (tmp_path / "_shared.py").write_text("x = 1\nraise RuntimeError('no')\n")
    write(tmp_path, "a.py", "import _shared\n" + GOOD)
    (mistake,) = mistakes(tmp_path)
    assert (mistake.file.name, mistake.line) == ("_shared.py", 2)
    (tmp_path / "_shared.py").write_text("x = 1\nif\n")
    (mistake,) = mistakes(tmp_path)
    assert (mistake.file.name, mistake.line) == ("_shared.py", 2)


def test_a_link_to_nothing(tmp_path):
    (tmp_path / "a.py").symlink_to("gone.py")
    (mistake,) = mistakes(tmp_path)
    assert "cannot read it: No such file" in mistake.message


def test_all_mistakes_of_all_files_at_once(tmp_path):
    write(
        tmp_path, "a.py", "@bridge.filter\ndef f(r): ...\n@bridge.filter('a')\ndef g(r: int): ...\n"
    )
    write(tmp_path, "b.py", "import no_such_module\n")
    write(tmp_path, "c.py", "if\n")
    found = [(one.file.name, one.line) for one in mistakes(tmp_path, {"unknown": {}})]
    assert sorted(found) == [("a.py", 3), ("a.py", 5), ("b.py", 3), ("c.py", 3)]


def test_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, "a.py", "1 / 0\n")
    (mistake,) = mistakes(Path())
    assert mistake.file == path
