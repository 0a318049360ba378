"""Dead letters of files: which are meant, where they go, and that they go once."""

import json
import os
import signal
import subprocess
import sys
import time

import msgspec
import pytest
import structlog

from bridge import logs
from bridge.cli import main
from bridge.events import EventTime
from bridge.forward import codec
from bridge.loading import load
from bridge.local.sink import Sink
from bridge.pipeline import Pipeline
from bridge.replay.ledger import Ranges, ranges
from bridge.replay.letters import Place, letter_of
from bridge.replay.selection import condition

FILTER = """
import bridge

@bridge.filter("**")
def enrich(record: dict) -> dict:
    raise bridge.Reject("no site\\nat all")
"""

# Times and records that must come back as they were.
EVENTS = [
    (EventTime(1_795_000_000, 123_456_789), b"\x81\xa2id\x01"),
    (EventTime(1_795_000_001), b"\x82\xa2id\x02\xa3raw\xa2\xff\xfe"),
    (1_795_000_002, b"\x83\xa2id\x03\xa3bin\xc4\x01\x80\xa1f\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00"),
    (1 << 40, b"\x82\xa2id\x04\xa1e\xd4\x05\x00"),
]


def entry(time, record):
    head = b"\xd7\x00" + time.to_bytes() if isinstance(time, EventTime) else None
    return b"\x92" + (head or msgspec.msgpack.encode(time)) + record


def letter(number, **fields):
    error = {"class": "Reject", "message": f"bad {number}", "filter": "enrich", "attempts": 1}
    return {
        "error": error,
        "tag": "ad.click",
        "time": f"2026-11-22T09:30:{number % 60:02}.000000000Z",
        "record": {"id": number, "country": "DE" if number % 2 else "FR"},
        **fields,
    }


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in os.environ:
        if name.startswith(("FLUENT_BRIDGE_", "KAFKA_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "300")
    logs.configure("error", "json")  # servers are in this process, and are not to be seen
    yield
    structlog.reset_defaults()


@pytest.fixture
def lines(tmp_path):
    """Return a function that appends letters to a file of JSON lines."""
    path = tmp_path / "dead.jsonl"

    def write(*letters):
        with path.open("a") as file:
            file.writelines(json.dumps(each) + "\n" for each in letters)
        return str(path)

    return write


@pytest.fixture
def sink():
    """A Forward server; what it took is in ``events``, it fails at what is in ``refused``."""
    events = []

    def take(chunk):
        found = [(chunk.tag, *each) for each in codec.decode_entries(chunk.entries)]
        if any(record.get("id") in server.refused for _, _, record in found):
            raise RuntimeError("refused")
        events.extend(found)

    with Sink(take) as server:
        server.events = events
        server.refused = ()
        server.to = ("--to", f"127.0.0.1:{server.port}")
        yield server


def run(capsys, *arguments, code=0):
    assert main(["replay", *arguments]) == code
    return capsys.readouterr()


@pytest.fixture
def refused(tmp_path):
    """A file as Fluentd keeps the letters that a pipeline made, and what they were made of."""
    (tmp_path / "filter.py").write_text(FILTER)
    pipeline = Pipeline(load(tmp_path))
    outcome = pipeline.run("ad.click", b"".join(entry(*event) for event in EVENTS), len(EVENTS))
    pipeline.close()
    (stream,) = outcome.streams
    assert stream.error
    path = tmp_path / "buffer.chunk.log"
    path.write_bytes(stream.entries)
    return str(path)


def test_events_go_back_as_they_were(capsys, refused, sink):
    taken = []
    with Sink(lambda chunk: taken.append((chunk.tag, bytes(chunk.entries)))) as server:
        done = run(capsys, refused, "--to", f"127.0.0.1:{server.port}")
    assert done.out == "4 letters read, 4 replayed, 0 not selected, 0 replayed before\n"
    assert done.err == ""
    assert [tag for tag, _ in taken] == ["ad.click"]
    # A whole second is told as text either way, and comes back as an EventTime.
    whole = [(EventTime(time) if time == 1_795_000_002 else time, each) for time, each in EVENTS]
    assert b"".join(packed for _, packed in taken) == b"".join(entry(*each) for each in whole)


def test_a_second_run_takes_what_is_new_or_left(capsys, lines, sink):
    file = lines(*map(letter, range(6)))
    odd = (*sink.to, "--where", "record.country=DE")
    assert run(capsys, file, *odd).out.startswith("6 letters read, 3 replayed, 3 not selected")
    assert run(capsys, file, *odd).out.startswith("6 letters read, 0 replayed, 3 not selected, 3")
    lines(letter(6))
    assert run(capsys, file, *sink.to, "--limit", "2").out.startswith("3 letters read, 2 replayed")
    assert run(capsys, file, *sink.to).out.startswith("7 letters read, 2 replayed")
    assert [record["id"] for _, _, record in sink.events] == [1, 3, 5, 0, 2, 4, 6]
    assert sink.events[0] == ("ad.click", EventTime(1_795_339_801), {"id": 1, "country": "DE"})
    # With another ledger all go again.
    again = run(capsys, file, *sink.to, "--ledger", f"{file}.again")
    assert again.out.startswith("7 letters read, 7 replayed")


def test_what_was_not_acknowledged_goes_again(capsys, lines, sink):
    file = lines(*map(letter, range(100)))
    sink.refused = {57}
    failed = run(capsys, file, *sink.to, "--rate", "200", "--timeout", "5", code=1)
    assert failed.out.startswith("60 letters read, 40 replayed")
    assert f"error: the connection to 127.0.0.1:{sink.port} was lost" in failed.err
    sink.refused = ()
    assert run(capsys, file, *sink.to).out.startswith("100 letters read, 60 replayed")
    assert [record["id"] for _, _, record in sink.events] == list(range(100))


def test_a_killed_run_goes_on_where_it_was(capsys, lines, sink):
    file = lines(*map(letter, range(1_000)))
    command = [sys.executable, "-m", "bridge", "replay", file, *sink.to, "--rate", "1000"]
    with subprocess.Popen(command) as process:
        while not sink.events:
            time.sleep(0.01)
        process.kill()
    sent = len(sink.events)
    with open(f"{file}.replayed", "a") as ledger:
        ledger.write('{"letters": [[1, 1000')  # what a kill can leave of a line
    done = run(capsys, file, *sink.to)
    numbers = [record["id"] for _, _, record in sink.events]
    assert set(numbers) == set(range(1_000))
    assert len(numbers) - 1_000 <= 100  # of the batch that was on its way
    assert 0 < sent < 1_000
    assert run(capsys, file, *sink.to).out.startswith("1000 letters read, 0 replayed"), done


def test_ctrl_c_leaves_the_rest(capsys, lines, sink):
    file = lines(*map(letter, range(1_000)))
    command = [sys.executable, "-m", "bridge", "replay", file, *sink.to, "--rate", "100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while not sink.events:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert " replayed, 0 not selected, 0 replayed before" in out
    run(capsys, file, *sink.to)
    assert [record["id"] for _, _, record in sink.events] == list(range(1_000))


def test_two_runs_at_once_are_one_too_many(capsys, lines, sink):
    file = lines(*map(letter, range(200)))
    command = [sys.executable, "-m", "bridge", "replay", file, *sink.to, "--rate", "10"]
    with subprocess.Popen(command) as process:
        while not sink.events:
            time.sleep(0.01)
        second = run(capsys, file, *sink.to, code=2)
        process.kill()
    assert second.err == (
        f"error: another replay writes to the ledger {file}.replayed now: let it end first\n"
    )


def test_a_dry_run_shows_what_would_go_and_does_nothing(capsys, lines, sink):
    late = {"class": "KeyError", "message": "'url'\n...", "filter": None, "attempts": 3}
    file = lines(letter(7), letter(7), letter(8, error=late), letter(9, tag="ad.\tview"))
    done = run(capsys, file, "--dry-run")
    assert done.out.splitlines() == [
        "LETTERS\tATTEMPTS\tTAG\tCLASS\tFILTER\tREASON",
        "2\t1\tad.click\tReject\tenrich\tbad 7",
        "1\t3\tad.click\tKeyError\t-\t'url'",
        "1\t1\tad. view\tReject\tenrich\tbad 9",
    ]
    assert done.err == "4 letters read, 4 would be replayed, 0 not selected, 0 replayed before\n"
    assert os.listdir(os.path.dirname(file)) == ["dead.jsonl"]
    assert run(capsys, file, *sink.to, "--dry-run", "--limit", "1").err.startswith("1 letters")
    assert not sink.events


def test_on_a_terminal_it_is_a_table(lines, on_terminal):
    file = lines(letter(7, tag="[ad]"))
    text = on_terminal("replay", file, "--dry-run", stderr=subprocess.STDOUT)
    assert "┃" in text
    assert "[ad]" in text


LETTER = letter_of(
    letter(
        1,
        error={"class": "Reject", "message": "no url in it", "filter": None, "attempts": 3},
        record={
            "country": "DE",
            "price": 1.5,
            "ok": True,
            "bin": "b",
            "page": {"site": "x"},
            "message": '{"id": 7, "user": {"name": "eve"}, "country": "FR"}',
        },
    )
)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("tag=ad.*", True),
        ("tag=ad.{click,view}", True),
        ("tag!=ad.**", False),
        ("tag = ad", False),
        ("tag~^ad", True),
        ("error.class=Reject", True),
        ("error.class!=Reject", False),
        ("error.class=reject", False),
        ("error.filter=null", True),
        ("error.filter!=enrich", True),
        ("error.attempts=3", True),
        ("error.message~no url", True),
        ("error.message!~^url", True),
        ("record.country=DE", True),
        ("record.price=1.5", True),
        ("record.price=1.50", True),
        ("record.price=x", False),
        ("record.ok=true", True),
        ("record.ok=1", False),
        ("record.page.site=x", True),
        ("record.page.site.more=x", False),
        ("record.missing=null", True),
        ("record.missing!=x", True),
        ("record.missing~x", False),
        ("record.id=7", True),  # of the document in its message
        ("record.user.name~^e", True),
        ("record.message~eve", True),
        ("record.url=a=b", False),
    ],
)
def test_conditions(text, holds):
    assert condition(text)(LETTER) is holds


def test_conditions_and_times_must_all_hold(capsys, lines):
    file = lines(*map(letter, range(60)))

    def chosen(*arguments):
        return int(run(capsys, file, "--dry-run", *arguments).err.split(", ")[1].split()[0])

    assert chosen("--where", "record.country=DE", "--where", "record.id~^1") == 6
    assert chosen("--since", "2026-11-22T09:30:50", "--until", "2026-11-22T09:30:55Z") == 5
    assert chosen("--since", "2026-11-22T10:30:58+01:00") == 2
    assert chosen("--until", "100000d") == 0


def test_ranges():
    found = Ranges()
    found.add([[5, 6], [1, 2]])
    found.add([[3, 3], [6, 9]])
    assert [number for number in range(12) if number in found] == [1, 2, 3, 5, 6, 7, 8, 9]
    # Offsets have gaps; a letter that was left out is none.
    places = [Place(0, 3, 1), Place(1, 0, 1), Place(0, 7, 2), Place(0, 9, 4), Place(1, 1, 2)]
    assert ranges(places) == {0: [[3, 7], [9, 9]], 1: [[0, 1]]}


NO_LETTERS = [
    ({"id": 1}, "it has no field 'error' with a 'class', as a dead letter has"),
    ({"tag": "x", "beginning": "{"}, "only the beginning of an event that Kafka refused"),
    (letter(1, tag=None), "its 'tag' is no text"),
    (letter(1, record="x"), "its 'record' is no record"),
    (letter(1, time="noon"), "its 'time' 'noon' is no time"),
]


def test_what_is_no_letter_is_skipped_and_said(capsys, lines, sink):
    file = lines(letter(0), *(each for each, _ in NO_LETTERS), letter(1))
    done = run(capsys, file, *sink.to)
    assert done.out == (
        "7 letters read, 2 replayed, 0 not selected, 0 replayed before, 5 no dead letters\n"
    )
    for number, (line, (_, why)) in enumerate(zip(done.err.splitlines(), NO_LETTERS, strict=True)):
        assert line.startswith(f"warning: {file}: letter {number + 2}: no dead letter: {why}")
    os.unlink(file)
    os.unlink(f"{file}.replayed")
    done = run(capsys, lines(*[{"id": 1}] * 30), *sink.to, code=1)  # not one of them
    assert len(done.err.splitlines()) == 21
    assert "more of these are only counted" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "messages"),
    [
        ([], 2, ["give either a FILE of dead letters or --from-topic"]),
        (["FILE", "--from-topic", "dead"], 2, ["give either a FILE of dead letters or"]),
        (["FILE"], 2, ["give either --to-topic or --to, or --dry-run to look only"]),
        (["FILE", "--to", "a:1", "--to-topic", "ad"], 2, ["give either --to-topic or --to"]),
        (["missing", "--dry-run"], 2, ["error: missing is no file"]),
        (["-", "--dry-run"], 2, ["error: - is no file: name the file"]),
        (["FILE", "--to", "here:x"], 2, ["--to here:x is no HOST:PORT, as in 127.0.0.1:24224"]),
        (["FILE", "--to", "127.0.0.1:9"], 1, ["error: cannot connect to 127.0.0.1:9", "Does a"]),
        (["FILE", "--dry-run", "--where", "Reject"], 2, ["'Reject' is no condition: write it as"]),
        (
            ["FILE", "--dry-run", "--where", "error.clas=X"],
            2,
            ["has no 'error.clas'", "did you mean 'error.class'?", "record.FIELD"],
        ),
        (["FILE", "--dry-run", "--where", "record=X"], 2, ["a letter has no 'record'"]),
        (["FILE", "--dry-run", "--where", "tag=a.{b"], 2, ["opens a brace and does not close it"]),
        (["FILE", "--dry-run", "--where", "tag~("], 2, ["'(' is no regular expression: missing )"]),
        (["FILE", "--dry-run", "--since", "noon"], 2, ["'noon' is no time: write 2026-11-22T09"]),
        (["FILE", "--to", "a:1", "--rate", "0"], 2, ["--rate", "0.001"]),
        (["FILE", "--dry-run", "--format", "csv"], 2, ["'csv' is not one of"]),
        (["FILE", "--to", "a:1", "--ledger", "/no/such"], 2, ["error: the ledger /no/such cannot be used: No such file", "--ledger"]),
        (["FILE", "--dry-run", "--ledger", "OTHER"], 2, ["OTHER is no ledger of a replay", "--ledger"]),
        (["FILE", "--dry-run", "--ledger", "FOREIGN"], 2, ["FOREIGN is the ledger of another file, other.jsonl"]),
        (["BROKEN", "--dry-run"], 2, ["error: BROKEN:2: "]),
        (["--from-topic", "dead", "--dry-run", "--brokers", "127.0.0.1:9"], 1, ["error: no Kafka broker answers at 127.0.0.1:9: ", "Connection refused", "--brokers"]),
        (["--from-topic", "dead", "--dry-run", "--kafka-config", "/no/such"], 2, ["error: /no/such cannot be read"]),
        (["--from-topic", "dead", "--dry-run", "--kafka-config", "FIXED"], 2, ["FIXED:2: leave transactional.id out"]),
        (["--from-topic", "dead", "--dry-run", "--kafka-config", "UNKNOWN"], 2, ["error: Kafka's client refuses an option: ", '"no.such"']),
        (["--from-topic", "dead", "--dry-run", "--kafka-config", "FILE"], 2, ["FILE:1: ", "write name=value"]),
    ],
)  # fmt: skip
def test_mistakes(capsys, tmp_path, monkeypatch, arguments, code, messages):
    monkeypatch.chdir(tmp_path)
    text = json.dumps(letter(1)) + "\n"
    (tmp_path / "FILE").write_text(text)
    (tmp_path / "BROKEN").write_text(text + "{\n")
    (tmp_path / "OTHER").write_text("something else\n")
    (tmp_path / "FOREIGN").write_text('{"file": "other.jsonl", "bytes": 9, "sha256": "0"}\n')
    (tmp_path / "FIXED").write_text("# TLS\ntransactional.id=x\n")
    (tmp_path / "UNKNOWN").write_text("no.such = 1\n")
    shown = run(capsys, *arguments, code=code)
    for message in messages:
        assert message in " ".join(shown.err.split())
    assert "Traceback" not in shown.err
