"""``fluent-bridge check``: what it shows, and all that it can complain about."""

import os
import re
import subprocess
import textwrap

import pytest

from bridge.cli import main
from bridge.local.fluentd import Fluentd, configuration

HEAD = "import dataclasses\nimport msgspec\nimport bridge\n"  # the sources below begin in line 4
GOOD = """
@bridge.filter("ad.**")
def good(record: dict) -> dict:
    return record
"""
CASES = "cases:\n  - tag: ad\n    input: {a: 1}\n    unchanged: true\n"

KINDS = """
print("loading")

class Click(msgspec.Struct):
    price: float
    country: str = "de"

@dataclasses.dataclass
class View:
    url: list[str] | None

@bridge.filter("ad.click\\n  web.{click,view}")
def paid(click: Click) -> bool:
    return click.price > 0

@bridge.filter("web.**")
async def look_up(event: bridge.Event) -> "list[bridge.Event]":
    return [event]

@bridge.batch("ad.*", name="all at once")
def batch(views: list[View]):
    return views

@bridge.filter("ad.**", concurrency=4)
class Score:
    def __init__(self, model, threshold=1, api_token=None):
        pass

    async def __call__(self, record) -> dict | None:
        return record

    def close(self):
        print("closed")
"""
PARAMETERS = "{Score: {model: [a, 1], api_token: s3cret}}"
ROWS = [
    ["ORDER", "TAGS", "FILTER", "TAKES", "GIVES", "RUNS", "WHERE"],
    ["1", "ad.click web.{click,view}", "paid", "Click(price: float, country: str = ...)", "bool", "function", "filters/10_f.py:14"],
    ["2", "web.**", "look_up", "Event", "list[bridge.Event]", "async function, 64 at a time", "filters/10_f.py:18"],
    ["3", "ad.*", "all at once", "list[View(url: list[str] | None)]", "-", "batch function", "filters/10_f.py:22"],
    ["4", "ad.**", "Score", "dict", "dict | None", 'async class Score(model=["a", 1], api_token="**********"), 4 at a time', "filters/10_f.py:26"],
]  # fmt: skip


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in os.environ:
        if name.startswith("FLUENT_BRIDGE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "filters").mkdir()


def write(**sources):
    """Write files: filters/10_NAME.py, NAME.cases.yaml where it ends in _cases, NAME.yaml, NAME.conf."""
    for name, text in sources.items():
        kind, _, rest = name.partition("_")
        path = {
            "filters": f"filters/10_{rest}.py",
            "cases": f"filters/{rest}.cases.yaml",
            "yaml": f"{rest}.yaml",
            "conf": f"{rest}.conf",
        }[kind]
        with open(path, "w", errors="surrogateescape") as file:
            file.write(HEAD if kind == "filters" else "")
            file.write(textwrap.dedent(text).lstrip("\n"))


def table(capsys, *argv):
    assert main(["check", *argv]) == 0
    shown = capsys.readouterr()
    return [line.split("\t") for line in shown.out.splitlines()], shown.err.splitlines()


def test_in_a_pipe_it_is_columns_with_tabs_between(capsys):
    write(filters_f=KINDS, cases_some=CASES)
    rows, notes = table(capsys, "--filters.parameters", PARAMETERS)
    assert rows == ROWS
    assert notes == ["loading", "closed", "4 filters, 1 case: no mistakes"]


@pytest.mark.parametrize(
    ("tag", "order"),
    [("ad.click", "134"), ("web.view", "12"), ("web", "2"), ("ad", "4"), ("ad.x.y", "4")],
)
def test_the_chain_of_a_tag(capsys, tag, order):
    write(filters_f=KINDS)
    rows, _ = table(capsys, "--filters.parameters", PARAMETERS, "--tag", tag)
    assert rows == [ROWS[0], *(ROWS[int(number)] for number in order)]


def test_a_tag_that_no_filter_is_for(capsys):
    write(filters_f=GOOD + GOOD.replace("good", "better"))
    rows, notes = table(capsys, "--tag", "da")
    assert rows == [ROWS[0]]
    assert notes[0] == (
        "no filter applies to da: its events pass as they are; the filters are for ad.**"
    )


def test_a_single_file(capsys):
    write(filters_f=GOOD, filters_g="1 / 0", cases_some=CASES)
    rows, notes = table(capsys, "filters/10_f.py")
    assert [row[2] for row in rows[1:]] == ["good"]
    assert notes == ["1 filter, 1 case: no mistakes"]


def test_on_a_terminal_it_is_a_table(on_terminal):
    write(filters_f=KINDS)
    text = on_terminal("check", "--filters.parameters", PARAMETERS, stderr=subprocess.DEVNULL)
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert "takes → gives" in plain
    assert re.search(r"2 +web\.\*\* +look_up +Event +filters/10_f\.py:18", plain)
    assert "→ list[bridge.Event]" in plain


MISTAKES = {
    "a filter": (
        {"filters_f": "@bridge.filter\ndef f(record): ..."},
        [],
        [r"/filters/10_f\.py:4: @bridge.filter needs a tag pattern in parentheses"],
    ),
    "no file": (
        {},
        [],
        [r"filters: no filter found: put files whose functions have @bridge.filter there"],
    ),
    "no folder": (
        {},
        ["elsewhere"],
        [r"elsewhere: cannot read the folder of filters: No such file .*; set filters.path to"],
    ),
    "close raises": (
        {
            "filters_f": """
            @bridge.filter("a")
            class f:
                def __call__(self, record): ...
                def close(self): raise OSError("no")
            """
        },
        [],
        [r"/filters/10_f\.py:4: f: its close raised OSError: no; correct it there, or catch it"],
    ),
    "parameters for no filter": (
        {"filters_f": GOOD},
        ["--filters.parameters", "{god: {}}"],
        [r"filters: there are parameters for 'god', but no such filter; did you mean 'good'\?"],
    ),
    "parameters that do not fit": (
        {"filters_f": GOOD},
        ["--filters.parameters", "{good: {a: 1}}"],
        [r"/filters/10_f\.py:4: good: it is a function, and the settings have parameters for it"],
    ),
    "a case": (
        {"filters_f": GOOD, "cases_some": CASES + "    extra: 1\n"},
        [],
        [r"filters/some\.cases\.yaml:5: a case has no key 'extra'"],
    ),
    "a value and all else": (
        {
            "filters_f": "import no_such_module",
            "filters_g": "def g(:",
            "cases_some": CASES + "    extra: 1\n",
        },
        ["--listen.port", "x", "--fluentd-conf", "none.conf"],
        [
            r"listen\.port: 'x' from flag --listen\.port cannot be used: it must be a whole number",
            r"/filters/10_f\.py:4: ModuleNotFoundError: .*; install it where the workers run",
            r"/filters/10_g\.py:4: it is not Python: .*; correct this line",
            r"filters/some\.cases\.yaml:5: a case has no key 'extra'",
            r"none\.conf: cannot be read: No such file or directory; give Fluentd's configuration",
        ],
    ),
    "a value of the filters": (
        {"filters_f": "1 / 0"},
        ["--filters.payload", "xml", "--log.level", "loud"],
        [r"filters\.payload: 'xml' .*: it must be raw or json", r"log\.level: 'loud' from flag"],
    ),
    # What it means is not known: the filters' own settings may be what is misspelt.
    "a name in the file": (
        {"filters_f": "1 / 0", "yaml_settings": "filters:\n  paht: filters\n"},
        ["--config", "settings.yaml"],
        [r"file settings\.yaml:2: filters\.paht: there is no such setting; did you mean"],
    ),
    "no Fluentd": (
        {"filters_f": GOOD, "conf_f": ""},
        ["--fluentd-conf", "f.conf"],
        [r"f\.conf: cannot be checked: fluentd is not on the PATH; install Fluentd, or leave out"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_all_shown_at_once_with_what_to_do(capsys, monkeypatch, case):
    sources, argv, says = MISTAKES[case]
    write(**sources)
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["check", *argv]) == 2
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == len(says)
    for line, said in zip(shown, says, strict=True):
        assert re.match(rf"error: \S*{said}", line)


def test_the_filters_are_shown_where_something_else_is_wrong(capsys):
    write(filters_f=GOOD)
    assert main(["check", "--listen.port", "x"]) == 2
    assert "\tgood\t" in capsys.readouterr().out


def test_a_flag_that_there_is_not(capsys):
    assert main(["check", "--listen.prot", "1"]) == 2
    assert "--listen.port" in capsys.readouterr().err


@pytest.fixture
def dry_run(capsys):
    """Return a function that checks a configuration with the real Fluentd."""
    if why := Fluentd.missing():
        pytest.skip(why)
    write(filters_f=GOOD)

    def check(conf, **others):
        write(conf_f=conf, **others)
        code = main(["check", "--fluentd-conf", "f.conf"])
        return code, capsys.readouterr().err.splitlines()

    return check


REFUSED = {
    "a value": (
        "<match **>\n  @type null\n  <buffer>\n    flush_mode often\n  </buffer>\n</match>",
        r"f\.conf: Fluentd does not take it: valid options are .* but got often, in <buffer>",
    ),
    "a section that does not end, in an included file": (
        "@include g.conf",
        r"g\.conf:\d: Fluentd does not take it: expected end tag '</source>'",
    ),
    "no text, which it never gets to log": (
        "\udcff\udcfe",
        r"f\.conf: Fluentd does not take it: invalid byte sequence in UTF-8",
    ),
    "our plugin, though the gem is not installed": (
        "<filter **>\n  @type bridge\n</filter>",
        r"f\.conf: Fluentd does not take it: 'address' parameter is required, in <filter",
    ),
}


@pytest.mark.fluentd
@pytest.mark.parametrize("case", REFUSED)
def test_what_fluentd_refuses(dry_run, case):
    conf, says = REFUSED[case]
    code, lines = dry_run(conf, conf_g="<source>\n")
    assert code == 2
    assert re.fullmatch(rf"error: \S*{says}.*; correct it there", lines[-1])
    assert len([line for line in lines if line.startswith("error")]) == 1


@pytest.mark.fluentd
def test_what_fluentd_takes_with_a_warning(dry_run):
    conf = configuration("grpc-filter").read_text()
    code, lines = dry_run(f"{conf}\n<source>\n  @type forward\n  prt 1\n</source>\n")
    assert code == 0, lines
    warning = "parameter 'prt' in <source> @type forward prt 1 </source> is not used."
    assert f"f.conf: Fluentd warns: {warning}" in lines
    assert lines[-1] == "1 filter, 0 cases, f.conf: no mistakes"
