"""What a filter may return, and what becomes of it."""

import pytest
from packed import pack

from bridge.errors import Retry

VIEWS = """
class Struct(msgspec.Struct):
    a: int
    new: int = 5
@dataclasses.dataclass
class Dataclass:
    a: int
class Typed(typing.TypedDict):
    a: int
"""
GIVEN = {"a": 1, "b": 2}

# name: the filter's parameter, its body, and what comes out of GIVEN: records by tag
GOOD = {
    "None": ("r: dict", "return None", {}),
    "nothing": ("r: dict", "pass", {}),
    "True": ("r: dict", "return True", {"t": [GIVEN]}),
    "False": ("r: dict", "return False", {}),
    "the same dict": ("r: dict", "r['c'] = 3; return r", {"t": [{**GIVEN, "c": 3}]}),
    "another dict": ("r: dict", "return {'c': r['a']}", {"t": [{"c": 1}]}),
    "a subclass": ("r", "import collections; return collections.Counter(r)", {"t": [GIVEN]}),
    "an empty dict": ("r", "return {}", {"t": [{}]}),
    "list": ("r", "return [r, {'c': 3}]", {"t": [GIVEN, {"c": 3}]}),
    "tuple": ("r", "return {'x': 1}, {'x': 2}", {"t": [{"x": 1}, {"x": 2}]}),
    "generator": (
        "r",
        "yield from ({'x': n} for n in range(3))",
        {"t": [{"x": n} for n in range(3)]},
    ),
    "iterator": ("r", "return map(dict, [[('x', 1)]])", {"t": [{"x": 1}]}),
    "empty list": ("r", "return []", {}),
    "empty generator": ("r", "return iter(())", {}),
    "Event of a record": ("r", "return bridge.Event('u', bridge.EventTime(1), r)", {"u": [GIVEN]}),
    "the same Event": (
        "e: bridge.Event",
        "e.record['c'] = 3; return e",
        {"t": [{**GIVEN, "c": 3}]},
    ),
    "Event True": ("e: bridge.Event", "return True", {"t": [GIVEN]}),
    "Event, another tag": ("e: bridge.Event", "e.tag += '.x'; return e", {"t.x": [GIVEN]}),
    "Event, its record": ("e: bridge.Event", "return e.record", {"t": [GIVEN]}),
    "Event, another record": (
        "e: bridge.Event",
        "e.record = {'z': e.tag}; return e",
        {"t": [{"z": "t"}]},
    ),
    "Events and dicts": (
        "e: bridge.Event",
        "return [e, {'x': 1}, bridge.Event('u', e.time, {'y': 2})]",
        {"t": [GIVEN, {"x": 1}], "u": [{"y": 2}]},
    ),
    "Struct True": ("v: Struct", "return v.a == 1", {"t": [GIVEN]}),
    "Struct False": ("v: Struct", "return v.a == 2", {}),
    "the same Struct": ("v: Struct", "v.a = 7; return v", {"t": [{"a": 7, "b": 2, "new": 5}]}),
    "another Struct": ("v: Struct", "return Struct(8, 9)", {"t": [{"a": 8, "b": 2, "new": 9}]}),
    "Structs": (
        "v: Struct",
        "return [Struct(1, n) for n in (1, 2)]",
        {"t": [{**GIVEN, "new": 1}, {**GIVEN, "new": 2}]},
    ),
    "dict for a Struct": ("v: Struct", "return {'a': v.a}", {"t": [{"a": 1}]}),
    "dataclass": ("v: Dataclass", "v.a = 7; return v", {"t": [{"a": 7, "b": 2}]}),
    "the same TypedDict": ("v: Typed", "v['a'] = 7; return v", {"t": [{"a": 7, "b": 2}]}),
    "another TypedDict": ("v: Typed", "return {'a': 7}", {"t": [{"a": 7}]}),
}


def source(parameter, body, *, asynchronous=False):
    define = "async def" if asynchronous else "def"
    return f"{VIEWS}\n@bridge.filter('t')\n{define} f({parameter}):\n    {body}\n"


@pytest.mark.parametrize(
    ("case", "asynchronous"),
    [(case, False) for case in GOOD]
    + [(case, True) for case in GOOD if "yield" not in GOOD[case][1]],
)
def test_results(run, case, asynchronous):
    parameter, body, expected = GOOD[case]
    result = run(source(parameter, body, asynchronous=asynchronous), [GIVEN, GIVEN])
    assert result.tags == {tag: records * 2 for tag, records in expected.items()}
    assert result.counts == (2, 0 if expected else 2, 0)
    ((name, seconds, came, dropped, failed),) = result.outcome.filters
    assert (name, came, dropped, failed) == ("f", 2, 0 if expected else 2, 0)
    assert seconds > 0


# name: the filter's parameter, its body, error class, what the message says
WRONG = {
    "int": ("r", "return 5", "WrongResult", "returned a int; a filter returns None, True"),
    "text": ("r", "return 'x'", "WrongResult", "returned a str"),
    "list of int": ("r", "return [r, 5]", "WrongResult", "returned a int in a list"),
    "list of None": ("r", "return [None]", "WrongResult", "returned a NoneType in a list"),
    "coroutine": ("r", "return asyncio.sleep(0)", "WrongResult", "async def"),
    "other Struct": ("r: dict", "return Struct(1)", "WrongResult", "returned a Struct"),
    "Event without tag": ("r", "return bridge.Event('', 1, r)", "WrongResult", "whose tag is ''"),
    "Event, no record": ("r", "return bridge.Event('t', 1, [])", "WrongResult", "record is a list"),
    "Event, no time": ("r", "return bridge.Event('t', 'now', r)", "WrongResult", "not str"),
    "Event, late": (
        "r",
        "return bridge.Event('t', bridge.EventTime(2**32), r)",
        "WrongResult",
        "2106",
    ),
    "object": ("r", "r['x'] = object(); return r", "Unencodable", "cannot hold a object"),
    "int of 65 bits": ("r", "r['x'] = 2**64; return r", "Unencodable", "ints"),
    "half a surrogate pair": ("r", "r['x'] = chr(0xd800); return r", "Unencodable", "surrogates"),
    "a ring": ("r", "r['x'] = r; return r", "Unencodable", "recursion"),
    "raises": ("r", "raise KeyError('x')", "KeyError", "'x'"),
    "rejects": ("r", "raise bridge.Reject('no price')", "Reject", "no price"),
    "asserts": ("r", "assert r['a'] == 2", "AssertionError", ""),
    "raises in a generator": ("r", "yield r; raise OSError('x')", "OSError", "x"),
    "view": ("v: Struct", "return v.b", "AttributeError", "'b'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_result_fails_for_that_event_only(run, case):
    parameter, body, error_class, says = WRONG[case]
    filters = source(parameter, body).replace(":\n    raise", ":\n    if True: raise")
    filters += "@bridge.filter('t.**')\ndef after(r): return r\n"
    result = run(filters, [GIVEN, GIVEN])
    assert result.counts == (2, 0, 2)
    assert result.tags == {}
    for letter in result.letters:
        assert letter["error"]["class"] == error_class
        assert says in letter["error"]["message"]
        assert letter["record"] == GIVEN
    if error_class != "Unencodable":
        assert {one["filter"] for one in result.errors} == {"f"}


def test_others_go_on(run):
    result = run(
        """
        @bridge.filter("t")
        def f(record):
            record["z"] = 1 / record["n"]
            return record
        """,
        [{"n": n % 4} for n in range(2000)],
    )
    assert result.counts == (2000, 0, 500)
    assert len(result.records()) == 1500
    assert all(letter["record"] == {"n": 0} for letter in result.letters)


def test_retry_is_for_the_whole_chunk(run):
    body = "if r['a'] == 2: raise bridge.Retry(7)\n    return r"
    for asynchronous in (False, True):
        with pytest.raises(Retry) as raised:
            run(source("r", body, asynchronous=asynchronous), [GIVEN, {"a": 2}])
        assert raised.value.delay == 7


def test_memory_and_the_end_of_the_process_are_no_events_fault(run):
    for error in (MemoryError, SystemExit):
        with pytest.raises(error):
            run(source("r", f"raise {error.__name__}"), [GIVEN])


def test_a_new_tag_goes_on_through_what_stands_below_and_matches_it(run):
    result = run(
        """
        @bridge.filter("t u")
        def first(record):
            record["first"] = True
            return record
        @bridge.filter("t")
        def move(event: bridge.Event):
            event.tag = event.record["to"]
            return event
        @bridge.filter("t")
        def stayed(record):
            record["stayed"] = True
            return record
        @bridge.filter("u v")
        def moved(event: bridge.Event):
            event.record["moved"] = event.tag
            event.tag = "v"
            return event
        @bridge.filter("v t")
        def last(record):
            record["last"] = True
            return record
        """,
        [{"to": "u"}, {"to": "t"}, {"to": "nowhere"}, {"to": "v"}],
    )
    assert result.tags == {
        "t": [{"to": "t", "first": True, "stayed": True, "last": True}],
        "nowhere": [{"to": "nowhere", "first": True}],
        "v": [
            {"to": "u", "first": True, "moved": "u", "last": True},
            {"to": "v", "first": True, "moved": "v", "last": True},
        ],
    }
    ins = {name: came for name, _, came, _, _ in result.outcome.filters}
    assert ins == {"first": 4, "move": 4, "stayed": 1, "moved": 2, "last": 3}


@pytest.mark.parametrize(
    ("time", "head"),
    [
        ("bridge.EventTime(5, 6)", b"\x92\xd7\x00\0\0\0\x05\0\0\0\x06"),
        ("5", b"\x92\x05"),
        ("5.5", b"\x92\xd7\x00\0\0\0\x05\x1d\xcd\x65\x00"),
    ],
)
def test_a_new_time(run, time, head):
    result = run(
        f"""
        @bridge.filter("t")
        def f(event: bridge.Event):
            event.time = {time}
            return event
        @bridge.filter("t")
        def odd(record):
            return record["n"] % 2 == 0 and record or 1 / 0
        """,
        [{"n": n} for n in range(4)],
    )
    assert result.streams["t", False] == head + b"\x81\xa1n\x00" + head + b"\x81\xa1n\x02"
    assert [letter["record"] for letter in result.letters] == [{"n": 1}, {"n": 3}]
    assert {letter["time"] for letter in result.letters} == {"2023-11-14T22:13:20.123456789Z"}


def test_an_event_has_the_time_that_came(run):
    body = "return {'time': list(e.time) if isinstance(e.time, tuple) else e.time}"
    for packed, time in {
        b"\xd7\x00\0\0\0\x05\0\0\0\x06": [5, 6],
        b"\xc7\x08\x00\0\0\0\x05\0\0\0\x06": [5, 6],
        b"\xce\0\0\0\x05": 5,
        b"\x05": 5,
        b"\xcb\x40\x16\0\0\0\0\0\0": [5, 500_000_000],
    }.items():
        result = run(source("e: bridge.Event", body), b"\x92" + packed + b"\x80")
        assert result.records() == [{"time": time}]
        assert result.streams["t", False].startswith(b"\x92" + packed)


def test_concurrency_is_bounded_and_order_kept(run, gather):
    result = run(
        """
        @bridge.filter("t", concurrency=5)
        async def f(record):
            await asyncio.sleep(0.02 if record["n"] % 3 else 0)
            if record["n"] % 10 == 9:
                raise ValueError("nine")
            return record
        """,
        [{"n": n} for n in range(50)],
    )
    assert gather.most == 5
    assert [one["n"] for one in result.records()] == [n for n in range(50) if n % 10 != 9]
    assert [letter["record"]["n"] for letter in result.letters] == [9, 19, 29, 39, 49]
    assert "in f" in result.errors[0]["traceback"]


BATCHES = {
    "same list": (
        "rs: list[dict]",
        "for r in rs: r['c'] = 1\n    return rs",
        [{"n": n, "c": 1} for n in range(4)],
    ),
    "mixed": (
        "rs",
        "return [None, {'x': 1}, True, [{'y': 1}, {'y': 2}]]",
        [{"x": 1}, {"n": 2}, {"y": 1}, {"y": 2}],
    ),
    "predicate": ("es: list[bridge.Event]", "return [e.record['n'] > 2 for e in es]", [{"n": 3}]),
    "views": (
        "vs: list[Struct]",
        "for v in vs: v.n *= 2\n    return vs",
        [{"n": n * 2} for n in range(4)],
    ),
    "tuple": ("rs", "return tuple(rs)", [{"n": n} for n in range(4)]),
}


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("case", BATCHES)
def test_batches(run, case, asynchronous):
    parameter, body, expected = BATCHES[case]
    define = "async def" if asynchronous else "def"
    view = "class Struct(msgspec.Struct):\n    n: int\n"
    result = run(
        f"{view}@bridge.batch('t')\n{define} f({parameter}):\n    {body}\n",
        [{"n": n} for n in range(4)],
    )
    assert result.records() == expected
    assert result.errors == []


def test_a_batch_gets_all_events_of_a_chunk(run):
    result = run("@bridge.batch('t')\ndef f(rs): return [{'of': len(rs)}] * len(rs)\n", [{}] * 5000)
    assert result.records() == [{"of": 5000}] * 5000


@pytest.mark.parametrize(
    "before", ["", "@bridge.filter('t')\ndef x(r):\n    r['o'] = chr(0xdcff)\n    return r\n"]
)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_batch_that_raises_is_called_with_each_event_alone(run, asynchronous, before):
    define = "async def" if asynchronous else "def"
    result = run(
        f"{before}@bridge.batch('t')\n{define} f(rs):\n"
        "    for r in rs:\n"
        "        r['seen'] = r.get('seen', 0) + 1\n"
        "        if r['n'] == 2: raise ValueError('two')\n"
        "    return rs\n",
        [{"n": n} for n in range(4)],
    )
    assert [(one["n"], one["seen"]) for one in result.records()] == [(0, 1), (1, 1), (3, 1)]
    (letter,) = result.letters
    assert letter["record"] == {"n": 2}
    assert (letter["error"]["class"], letter["error"]["message"]) == ("ValueError", "two")
    assert "raise ValueError('two')" in letter["error"]["traceback"]


@pytest.mark.parametrize("returns", ["rs[:1]", "None", "5", "{}"])
def test_a_batch_that_returns_no_list_of_the_same_length(run, returns):
    result = run(f"@bridge.batch('t')\ndef f(rs): return {returns}\n", [{"n": 1}, {"n": 2}])
    assert result.counts == (2, 0, 2)
    assert {(one["class"], one["traceback"]) for one in result.errors} == {("WrongResult", None)}
    assert (
        "for 2 events; @bridge.batch wants a list with one result an event"
        in result.errors[0]["message"]
    )


def test_a_batch_may_ask_for_the_chunk_again(run):
    with pytest.raises(Retry):
        run("@bridge.batch('t')\ndef f(rs): raise bridge.Retry\n", [{}, {}])


def test_a_class_is_made_once_and_closed(build, tmp_path):
    pipeline = build(
        """
        class Base:
            def __init__(self, path):
                self.path, self.count = path, 0
            def __call__(self, record):
                self.count += 1
                return {"count": self.count}
        @bridge.filter("t")
        class Counts(Base):
            def close(self):
                with open(self.path, "a") as log:
                    log.write(f"{self.count} closed\\n")
        @bridge.filter("t")
        class Awaits(Base):
            async def __call__(self, record): return record
            async def close(self):
                await asyncio.sleep(0)
                with open(self.path, "a") as log:
                    log.write("awaited\\n")
        @bridge.filter("t")
        class Fails(Base):
            def close(self): raise OSError("stuck")
        """,
        {name: {"path": str(tmp_path / "log")} for name in ("Counts", "Awaits", "Fails")},
    )
    for _ in range(2):
        pipeline.run("t", pack([{}, {}]), 2)
    with pytest.raises(ExceptionGroup) as raised:
        pipeline.close()
    assert [str(error) for error in raised.value.exceptions] == ["stuck"]
    assert (tmp_path / "log").read_text() == "4 closed\nawaited\n"
