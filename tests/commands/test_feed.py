"""``fluent-bridge feed``: what arrives, what is acknowledged, and how it ends."""

import collections
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time

import msgpack
import pytest
import structlog

from bridge import logs
from bridge.cli import main
from bridge.forward import ServerAuth, codec
from bridge.local.processes import free_port
from bridge.local.sidecar import Sidecar
from bridge.local.sink import Sink

FILTERS = """
import bridge

@bridge.filter("ad.**")
def act(record: dict) -> dict | None:
    if record["id"] % 10 == 3:
        return None
    if record["id"] % 10 == 7:
        raise ValueError("no good")
    record["seen"] = True
    return record
"""
COMMAND = [sys.executable, "-m", "bridge", "feed"]


class Received:
    """What a sink took."""

    def __init__(self):
        self.counts = collections.Counter()
        self.entries = collections.defaultdict(bytes)
        self.arrived = threading.Event()

    def __call__(self, chunk):
        self.counts[chunk.tag] += chunk.count
        self.entries[chunk.tag] += bytes(chunk.entries)
        self.arrived.set()

    def records(self, tag):
        return [record for _, record in codec.decode_entries(self.entries[tag])]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in os.environ:
        if name.startswith("FLUENT_BRIDGE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    logs.configure("error", "json")  # the sinks are in this process, and are not to be seen
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("feed")
    (folder / "filters").mkdir()
    (folder / "filters" / "f.py").write_text(FILTERS)
    return folder


@pytest.fixture(scope="module")
def filters(folder):
    return str(folder / "filters")


@pytest.fixture(scope="module")
def received():
    return Received()


@pytest.fixture(scope="module")
def sidecar(folder, received):
    """One for Forward and gRPC, its results in `received`."""
    with Sink(received) as sink:
        sidecar = Sidecar(
            folder / "filters",
            folder,
            {"downstream.port": sink.port, "workers.count": 1, "rpc.socket": folder / "s"},
        )
        sidecar.start()
        yield sidecar
        assert sidecar.stop() == 0


@pytest.fixture
def lines(tmp_path):
    """Return a function: a number → the path of a file of so many records."""

    def write(count, name="events.jsonl", tail=""):
        path = tmp_path / name
        path.write_text("".join(f'{{"id": {n}}}\n' for n in range(count)) + tail)
        return str(path)

    return write


@pytest.fixture
def feed(capsys):
    """Return a function: arguments → exit code, stdout and stderr."""

    def run(*arguments):
        code = main(["feed", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def test_over_forward_all_of_it_arrives(feed, lines, sidecar, received):
    code, out, err = feed(
        lines(1000), "--tag", "ad.click", "--chunk", 100, "--to", f"127.0.0.1:{sidecar.port}"
    )
    assert (code, out, err) == (0, "1000 events sent in 10 chunks, 10 acknowledged, 0 not\n", "")
    assert received.counts == {"ad.click": 800, "error.ad.click": 100}
    assert {one["id"] for one in received.records("ad.click")} == {
        n for n in range(1000) if n % 10 not in (3, 7)
    }


def test_msgpack_arrives_byte_for_byte_under_the_tags_that_it_has(
    feed, tmp_path, sidecar, received
):
    odd = b"\x92\xd7\x00\x00\x00\x00\x01\x00\x00\x00\x02\xde\x00\x01\xa1a\xa3\xff\xfe\xfd"
    path = tmp_path / "messages.log"
    path.write_bytes(msgpack.packb(["odd.a", odd * 3]) + msgpack.packb(["odd.b", odd]))
    code, out, _ = feed(path, "--to", f"127.0.0.1:{sidecar.port}", "--json")
    assert code == 0
    assert json.loads(out) == {
        "events": 4, "chunks": 2, "acknowledged": 2, "not_acknowledged": 0, "bytes": 4 * len(odd),
    }  # fmt: skip
    assert (received.entries["odd.a"], received.entries["odd.b"]) == (odd * 3, odd)


def test_over_grpc_the_results_come_back(feed, lines, folder, sidecar):
    arguments = (lines(1000), "--tag", "ad.click", "--socket", folder / "s", "--chunk", 400)
    code, out, err = feed(*arguments)
    assert code == 0
    assert err == (
        "1000 events sent in 3 chunks, 3 acknowledged, 0 not;"
        " 800 out, 100 dropped, 100 dead letters\n"
    )
    counts = collections.Counter(line.partition(":")[0] for line in out.splitlines())
    assert counts == {"ad.click": 800, "error.ad.click": 100, "  reason": 100}
    code, out, err = feed(*arguments, "--quiet", "--json", "--limit", 500)
    assert (code, out) == (0, "")
    assert json.loads(err)["events"] == 500
    assert json.loads(err)["dead_letters"] == 50


def test_in_this_process_what_the_filters_made_is_shown(feed, lines, filters):
    code, out, err = feed(lines(9), "--tag", "ad.x", "--filters", filters)
    assert (code, err) == (0, "9 events run in 1 chunks; 7 out, 1 dropped, 1 dead letters\n")
    *made, letter, reason = out.splitlines()
    assert made == [f'ad.x: {{"id":{n},"seen":true}}' for n in (0, 1, 2, 4, 5, 6, 8)]
    assert letter == 'error.ad.x: {"id":7}'
    assert reason == f"  reason: act: ValueError: no good ({filters}/f.py:9)"


def test_in_this_process_for_scripts(feed, lines, filters):
    code, out, err = feed(lines(9), "--tag", "ad.x", "--filters", filters, "--json")
    assert code == 0
    *made, letter = map(json.loads, out.splitlines())
    assert made[0]["tag"] == "ad.x"
    assert made[0]["record"] == {"id": 0, "seen": True}
    assert letter["tag"] == "error.ad.x"
    assert letter["record"]["record"] == {"id": 7}
    assert letter["record"]["error"]["class"] == "ValueError"
    assert json.loads(err)["out"] == 7


def test_csv_gives_texts(feed, tmp_path, filters):
    path = tmp_path / "e.csv"
    path.write_text("id,price\n1,2.5\n")
    code, out, _ = feed(path, "--tag", "other", "--filters", filters)
    assert (code, out) == (0, 'other: {"id":"1","price":"2.5"}\n')
    assert (
        feed(path, "--tag", "ad", "--filters", filters)[1]
        .splitlines()[1]
        .startswith("  reason: act: TypeError: not all arguments converted")
    )  # "1" % 10


def test_documents_for_filters_whose_payload_is_json(feed, lines, filters, monkeypatch):
    path = lines(2)
    arguments = (path, "--tag", "ad.x", "--filters", filters)
    code, out, _ = feed(*arguments, "--payload", "json")
    assert code == 0
    assert out.splitlines()[0] == r'ad.x: {"message":"{\"id\":0,\"seen\":true}"}'
    monkeypatch.setenv("FLUENT_BRIDGE_FILTERS__PAYLOAD", "json")
    assert feed(*arguments)[1] == out


def test_repeat_and_limit(feed, lines, filters):
    path = lines(10)
    arguments = ("--tag", "ad.x", "--filters", filters, "--quiet", "--chunk", 8)
    assert feed(path, *arguments, "--repeat", 3)[2].startswith("30 events run in 4 chunks;")
    assert feed(path, *arguments, "--repeat", 3, "--limit", 17)[2].startswith("17 events run in 3")


def test_a_mistake_in_the_file_ends_it_after_what_stands_before(feed, lines, sidecar, received):
    path = lines(25, tail='{"id": 25\n{"id": 26}\n')
    code, out, err = feed(path, "--tag", "bad", "--chunk", 10, "--to", f"127.0.0.1:{sidecar.port}")
    assert (code, out) == (2, "25 events sent in 3 chunks, 3 acknowledged, 0 not\n")
    assert err.startswith(f"error: {path}:26: not a JSON object: Input data was truncated")
    assert received.counts["bad"] == 25


def test_from_standard_input(filters):
    done = subprocess.run(
        [*COMMAND, "-", "--tag", "ad.x", "--filters", filters],
        input='{"id": 1}\n{"id": 2}',
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == 'ad.x: {"id":1,"seen":true}\nad.x: {"id":2,"seen":true}\n'


def test_who_reads_the_results_may_stop(lines, filters):
    """No traceback, as from any program in a pipe."""
    path = lines(20_000)
    with subprocess.Popen(
        [*COMMAND, path, "--tag", "ad.x", "--filters", filters],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b'ad.x: {"id":0,"seen":true}\n'
        process.stdout.close()
        err = process.stderr.read().decode()
    assert process.returncode == 1
    assert "Traceback" not in err
    assert "events run in" in err


def test_what_is_not_acknowledged_is_said(feed, lines):
    """Also that of the chunk in whose sending it is noticed, as eight are on their way."""
    with Sink(Received()) as sink:
        sink.hold()
        code, out, err = feed(
            lines(100), "--tag", "t", "--chunk", 10, "--timeout", 0.5,
            "--to", f"127.0.0.1:{sink.port}",
        )  # fmt: skip
        sink.release()
    assert (code, out) == (1, "80 events sent in 8 chunks, 0 acknowledged, 8 not\n")
    assert f"error: 127.0.0.1:{sink.port} did not acknowledge within 0.5 s" in err
    assert (
        "; not acknowledged: chunk 1 (events 1 to 10), chunk 2 (events 11 to 20),"
        " chunk 3 (events 21 to 30) and 5 more\n" in err
    )


def test_a_chunk_that_is_refused_is_not_acknowledged(feed, lines):
    """The receiver closes the connection in the middle, and what it last said may be lost with it."""

    def take(chunk):
        if b"\xa2id\x0e" in chunk.entries:  # the record with id 14; a time may hold that byte, too
            raise ValueError

    with Sink(take) as sink:
        code, out, err = feed(
            lines(35), "--tag", "t", "--chunk", 10, "--to", f"127.0.0.1:{sink.port}"
        )
    assert code == 1
    assert re.search(r" [01] acknowledged, [1-4] not\n", out)
    assert "chunk 2 (events 11 to 20)" in err.partition("not acknowledged: ")[2]


def test_nobody_there(feed, lines, tmp_path):
    port = free_port()
    code, out, err = feed(lines(3), "--tag", "t", "--to", f"127.0.0.1:{port}")
    assert (code, out) == (1, "0 events sent in 0 chunks, 0 acknowledged, 0 not\n")
    assert err.startswith(f"error: cannot connect to 127.0.0.1:{port}: ")
    code, _, err = feed(lines(3), "--tag", "t", "--socket", tmp_path / "none")
    assert code == 1
    assert f"there is no socket {tmp_path}/none: does a sidecar run with --rpc.socket" in err


def test_a_filter_that_asks_for_its_chunk_again(feed, lines, tmp_path):
    (tmp_path / "f.py").write_text(
        "import bridge\ncalls = []\n"
        "@bridge.filter('t')\n"
        "def f(record: dict) -> dict:\n"
        "    calls.append(1)\n"
        "    if len(calls) == 1 or record['id'] == 2:\n"
        "        raise bridge.Retry(0.1)\n"
        "    return record\n"
    )
    code, out, err = feed(
        lines(3), "--tag", "t", "--chunk", 1, "--filters", tmp_path / "f.py", "--timeout", 0.5
    )
    assert code == 1
    assert out == 't: {"id":0}\nt: {"id":1}\n'
    assert "3 events run in 2 chunks; 2 out" in err
    assert "raised bridge.Retry" in err
    assert "not acknowledged: chunk 3 (events 3 to 3)" in err


def test_the_key_and_the_password_come_from_the_environment(feed, lines, monkeypatch):
    auth = ServerAuth(shared_key="k3y", hostname="sink", users={"alice": "s3cret"})
    with Sink(Received(), auth=auth) as sink:
        arguments = (
            lines(3),
            "--tag",
            "t",
            "--to",
            f"127.0.0.1:{sink.port}",
            "--username",
            "alice",
        )
        code, _, err = feed(*arguments)
        assert code == 2
        assert "set FLUENT_BRIDGE_LISTEN__SHARED_KEY and FLUENT_BRIDGE_LISTEN__USERS__alice" in err
        monkeypatch.setenv("FLUENT_BRIDGE_LISTEN__SHARED_KEY", "k3y")
        monkeypatch.setenv("FLUENT_BRIDGE_LISTEN__USERS__alice", "s3cret")
        assert feed(*arguments)[0] == 0
        monkeypatch.setenv("FLUENT_BRIDGE_LISTEN__SHARED_KEY", "wrong")
        code, out, err = feed(*arguments)
        assert code == 1
        assert out.startswith("0 events sent")
        assert f"error: 127.0.0.1:{sink.port}: " in err


def test_over_tls_and_then_with_the_downstream_away(
    feed, lines, folder, certificates, tmp_path, request
):
    with Sink(Received()) as sink:
        sidecar = Sidecar(
            folder / "filters",
            tmp_path,
            {
                "downstream.port": sink.port,
                "workers.count": 1,
                "listen.tls_cert_file": certificates / "server.pem",
                "listen.tls_key_file": certificates / "server.pem",
                "listen.tls_client_ca_file": certificates / "ca.pem",
                "shutdown.grace": 0.1,
            },
        )
        sidecar.start()
        request.addfinalizer(sidecar.stop)
        client = str(certificates / "client.pem")
        arguments = (
            lines(30), "--tag", "ad.x", "--chunk", 10, "--to", f"127.0.0.1:{sidecar.port}", "--tls",
            "--tls-ca-file", certificates / "ca.pem", "--tls-cert-file", client,
            "--tls-key-file", client, "--timeout", 1,
        )  # fmt: skip
        assert feed(*arguments)[:2] == (0, "30 events sent in 3 chunks, 3 acknowledged, 0 not\n")
        assert feed(*arguments[:-8], "--tls", "--timeout", 1)[0] == 1  # it knows no such authority
    code, out, err = feed(*arguments)
    assert (code, out) == (1, "30 events sent in 3 chunks, 0 acknowledged, 3 not\n")
    assert f"error: 127.0.0.1:{sidecar.port} did not acknowledge within 1 s" in err


def test_a_rate_is_kept(lines, filters, feed):
    began = time.monotonic()
    code, _, _ = feed(
        lines(100), "--tag", "ad.x", "--filters", filters, "--quiet", "--rate", 200, "--chunk", 20
    )
    assert code == 0
    # The last 20 are due after 80 have gone. A slow machine is later, and never earlier.
    assert time.monotonic() - began >= 80 / 200


def test_at_a_rate_chunks_are_a_tenth_of_a_second(lines, filters, feed):
    _, _, err = feed(lines(20), "--tag", "ad.x", "--filters", filters, "-q", "--rate", 50)
    assert err.startswith("20 events run in 4 chunks;")


def test_ctrl_c_says_what_was_acknowledged(lines):
    received = Received()
    with Sink(received) as sink:
        with subprocess.Popen(
            [
                *COMMAND, lines(1000), "--tag", "t", "--rate", "5", "--chunk", "5",
                "--to", f"127.0.0.1:{sink.port}",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:  # fmt: skip
            assert received.arrived.wait(30)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "events sent in" in out
    assert out.endswith(" not\n")
    assert err.startswith("error: interrupted")
    assert "Traceback" not in err


def test_the_bar_is_for_terminals(lines, filters):
    """On stderr, gone in the end; the results on a pipe are not disturbed."""
    parent, child = pty.openpty()
    screen = bytearray()

    def watch():
        try:
            while piece := os.read(parent, 65536):
                screen.extend(piece)
        except OSError:  # how a terminal says that nobody holds its other end
            pass

    with subprocess.Popen(
        [*COMMAND, lines(300), "--tag", "ad.x", "--filters", filters, "--rate", "300"],
        stdout=subprocess.PIPE,
        stderr=child,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
    ) as process:
        os.close(child)
        watching = threading.Thread(target=watch)
        watching.start()  # a terminal's buffer is short: it is to be read all the while
        out = process.stdout.read().decode()
    watching.join()
    os.close(parent)
    assert process.returncode == 0
    assert b"chunks acknowledged" in screen
    assert b"/s" in screen
    assert "\x1b" not in out
    assert len(out.splitlines()) == 300 - 30 + 30  # results, and two lines a dead letter


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.jsonl", "--socket", "s", "--filters", "f"], "--to, --socket and --filters exclude each other"),
        (["-", "--tag", "t", "--repeat", "2"], "standard input comes once"),
        (["x.jsonl", "--tag", "t", "--to", "here:x"], "--to here:x is no HOST:PORT, as in 127.0.0.1:24224"),
        (["x.jsonl", "--tag", "t", "--tls-ca-file", "ca.pem"], "files for TLS are given, but not --tls"),
        (["x.jsonl", "--tag", "t", "--tls", "--tls-ca-file", "/no.pem"], "--tls-ca-file, --tls-cert-file or --tls-key-file cannot be used"),
        (["x.jsonl", "--tag", "t", "--filters", "/no/such"], "/no/such: cannot read the folder of filters"),
        (["/no/file.jsonl", "--tag", "t", "--filters", "{filters}"], "/no/file.jsonl: cannot be read: No such file"),
        (["{lines}", "--filters", "{filters}"], "say it with --tag"),
        (["{lines}", "--tag", "t", "--format", "xml"], "xml"),
        (["{lines}", "--tag", "t", "--config", "/no/such"], "file /no/such: cannot be read"),
    ],
)  # fmt: skip
def test_mistakes_are_plain_messages(feed, lines, filters, arguments, message):
    path = lines(3)
    code, out, err = feed(*(one.format(filters=filters, lines=path) for one in arguments))
    assert code == 2
    assert out == ""
    assert message in " ".join(err.split())
    assert "Traceback" not in err
