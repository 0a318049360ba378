"""Every example's cases, in process and in workers, and what its README promises beside them."""

import importlib.util
import re
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from bridge import cli, tags
from bridge.events import EventTime
from bridge.forward import Chunk
from bridge.samples import read
from bridge.testing import cases, verdict
from bridge.testing.harness import Harness

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(folder.name for folder in EXAMPLES.iterdir() if folder.is_dir())
SAMPLES = sorted(sample.parent.name for sample in EXAMPLES.glob("*/sample.jsonl"))
TAGS = {"geoip": "web.access", "mask-pii": "app.login", "parse-log": "nginx.access"}


@pytest.fixture
def asked(monkeypatch):
    """What was asked of the service of lookup-http, by id."""
    file = EXAMPLES / "lookup-http" / "server.py"
    spec = importlib.util.spec_from_file_location("lookup_http_server", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with ThreadingHTTPServer(("127.0.0.1", 0), module.Service) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("LOOKUP_URL", f"http://127.0.0.1:{server.server_port}/campaign")
        yield module.Service.asked
        server.shutdown()
        thread.join()


@pytest.fixture
def environment(asked, monkeypatch):
    """What examples take from the environment."""
    monkeypatch.setenv("MASK_KEY", "0123456789abcdef")


def run(file, **options):
    """Run a file's cases; return what is wrong and the names and patterns of its filters."""
    with Harness(file.folder, payload=file.payload, parameters=file.parameters, **options) as it:
        wrong = [verdict.text(one, lines) for one in file.cases if (lines := verdict.run(one, it))]
        return wrong, it.filters


def test_examples_are_complete():
    assert len(NAMES) >= 8
    table = (EXAMPLES / "README.md").read_text()
    for name in NAMES:
        assert f"| [{name}]({name}) |" in table
        readme = (EXAMPLES / name / "README.md").read_text()
        assert f"fluent-bridge test examples/{name}\n" in readme
        assert 10 <= len(readme.splitlines()) <= 30
        assert list((EXAMPLES / name / "filters").glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_cases(name, environment):
    files = cases.read_all(cases.find(EXAMPLES / name))
    assert files, f"the example {name} has no cases"
    for file in files:
        wrong, filters = run(file)
        assert not wrong, "\n".join(wrong)
        assert len(file.cases) >= 3
        for called, pattern in filters:
            matches = tags.matcher(pattern)
            assert any(matches(one.tag) for one in file.cases), f"no case for {called}"


# One that waits for others and must be closed, one that loads a library of C++.
@pytest.mark.parametrize("name", ["lookup-http", "score-model"])
def test_cases_in_a_worker(name, environment):
    (file,) = cases.read_all(cases.find(EXAMPLES / name))
    wrong, _ = run(file, sidecar=True)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_pass(name, environment, fluent_bridge):
    folder = EXAMPLES / name
    result = fluent_bridge(folder / "filters").feed_file(
        folder / "sample.jsonl", tag=TAGS.get(name, "ad.click")
    )
    assert not [letter.reason for letter in result.dead_letters]
    assert not result.dropped
    assert len(result.events) >= result.received == 20
    assert result.records != [one.record for one in read(folder / "sample.jsonl")]


COMMANDS = [
    line
    for readme in sorted(EXAMPLES.glob("*/README.md"))
    for line in re.findall(r"^    .*?fluent-bridge (.*)$", readme.read_text(), re.MULTILINE)
]


@pytest.mark.parametrize("line", COMMANDS)
def test_the_readmes_commands_run(line, environment, monkeypatch, capsys):
    monkeypatch.chdir(EXAMPLES.parent)
    status = cli.main(line.split())
    assert not status, capsys.readouterr().err


def test_a_campaign_is_asked_for_once_while_its_answer_is_good(asked, fluent_bridge):
    clicks = [{"campaign_id": 7 + number % 2} for number in range(200)] + [{"campaign_id": 1}]
    harness = fluent_bridge(EXAMPLES / "lookup-http" / "filters")
    for _ in range(2):
        assert len(harness.feed("ad.click", clicks).dead_letters) == 1
    assert asked == {"7": 1, "8": 1, "1": 1}


def test_a_service_that_is_away_is_asked_for_the_events_under_way_and_no_more(asked, fluent_bridge):
    harness = fluent_bridge(
        EXAMPLES / "lookup-http" / "filters", parameters={"Lookup": {"pause": 3600}}
    )
    assert harness.feed("ad.click", [{"campaign_id": 7}]).records
    busy = [{"campaign_id": 7}, *({"campaign_id": f"busy{number}"} for number in range(500))]
    for _ in range(2):
        assert harness.feed("ad.click", busy).retry == 3600
    assert asked["7"] == 1
    assert 1 < asked.total() <= 1 + 32
    assert harness.feed("ad.click", [{"campaign_id": 7}]).records, "what is known needs nobody"


def test_a_service_that_was_away_is_asked_again(asked, fluent_bridge):
    harness = fluent_bridge(
        EXAMPLES / "lookup-http" / "filters", parameters={"Lookup": {"pause": 0}}
    )
    for _ in range(2):
        assert harness.feed("ad.click", [{"campaign_id": "busy"}]).retry == 0.1
    assert asked == {"busy": 2}


@pytest.mark.parametrize("levels", [10, 100, 300, 1_000, 5_000])
def test_no_depth_lets_an_email_through(levels, environment, fluent_bridge):
    record = b"\x81\xa1a" * levels + b"\xafada@example.com"
    chunk = Chunk("app.x", b"\x92\xd7\x00" + EventTime(1).to_bytes() + record, 1, None, None)
    result = fluent_bridge(EXAMPLES / "mask-pii" / "filters").run(chunk)
    assert result.entries
    assert not result.dead_letters
    assert b"ada@" not in b"".join(result.entries.values())


# Of a quadratic pattern each would take minutes.
@pytest.mark.parametrize(
    ("name", "tag", "text"),
    [
        ("mask-pii", "app.x", "a" * 300_000 + "@"),
        ("mask-pii", "app.x", "@" + "a." * 150_000),
        ("mask-pii", "app.x", "a:" * 150_000 + "@"),
        ("mask-pii", "app.x", "1.1.1" * 60_000),
        ("parse-log", "nginx.x", "1.2.3.4 - - [x] " + '"' + "\\" * 300_000),
        ("parse-log", "nginx.x", "1.2.3.4 - " + "a " * 150_000),
        ("parse-log", "nginx.x", "2026/01/02 02:04:05 [error] 1#1: a" + " " * 300_000 + "\x00"),
        ("parse-log", "nginx.x", "2026/01/02 02:04:05 [error] 1#1: " + ', host: "' * 30_000),
    ],
)
def test_no_text_takes_quadratic_time(name, tag, text, environment, fluent_bridge):
    result = fluent_bridge(EXAMPLES / name / "filters").feed(tag, {"message": text})
    assert len(result.events) + len(result.dead_letters) == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("8.8.8.0,8.8.8.255,US", "ranges.csv:1: "),
        ("5.9.0.0,5.9.255.255,DE,1\n8.8.8.255,8.8.8.0,US,2", "ranges.csv:2: "),
        ("5.9.0.0,5.9.255.255,DE,1\n5.9.7.0,5.9.7.255,FR,2", "two ranges hold 5.9.7.0"),
        ("2001:db8::,2001:db8:1::,DE,1\n2001:db8:1::,2001:db8:2::,FR,2", "hold 2001:db8:1::"),
        ("10.1.0.0,10.2.0.0,DE,1", "two ranges hold 10.1.0.0; one may be of PRIVATE"),
    ],
)
def test_a_table_of_ranges_that_cannot_be_right_is_refused(rows, message, tmp_path):
    table = tmp_path / "ranges.csv"
    table.write_text(rows)
    with pytest.raises(ExceptionGroup) as refused:
        Harness(EXAMPLES / "geoip" / "filters", parameters={"GeoIp": {"table": str(table)}})
    assert message in str(refused.value.exceptions[0])
