"""What top makes of a sidecar's metrics, over real HTTP and on a terminal."""

import io
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from fcntl import ioctl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest
from rich.console import Console

from bridge.cli import main
from bridge.errors import SettingsError
from bridge.metrics import Metrics
from bridge.watch.figures import figures
from bridge.watch.metrics import Scrape
from bridge.watch.port import Port
from bridge.watch.records import changes, select
from bridge.watch.screen import Screen

READY = {"ready": True, "checks": {"filters": "ok"}}


def scrape(metrics, moment, ready=READY):
    return Scrape(metrics.render()[0].decode(), ready, moment)


def work(metrics, *, names=("slow", "quick"), workers=2):
    """Count what a sidecar counts in some seconds."""
    metrics.received_events.inc(1000)
    metrics.emitted_events.inc(700)
    metrics.dropped_events.inc(200)
    metrics.error_events.inc(100)
    metrics.received_chunks.inc(10)
    metrics.received_bytes.inc(2e6)
    metrics.queue_wait_seconds.observe(0.002)
    metrics.in_flight_bytes.set(64 << 20)
    metrics.in_flight_limit_bytes.set(256 << 20)
    metrics.delivery_seconds.observe(0.004)
    metrics.connections.set(1)
    for name in map(str, range(workers)):
        metrics.worker_cpu_seconds.labels(name).inc(1)
        metrics.worker_resident_bytes.labels(name).set(40 << 20)
        for _ in range(5):
            metrics.worker_chunk_seconds.labels(name).observe(0.1)
    for number, name in enumerate(names):
        metrics.filter_seconds.labels(name).observe(0.8 / (1 + number * 7))
        metrics.filter_events.labels(name).inc(1000)
        metrics.filter_dropped.labels(name).inc(200)
        metrics.filter_errors.labels(name).inc(100)
    metrics.rpc_calls.labels("Process", "OK").inc(20)
    metrics.rpc_calls.labels("Process", "UNAVAILABLE").inc(2)
    metrics.rpc_call_seconds.labels("Process").observe(0.05)


def test_the_figures_are_of_the_interval():
    metrics = Metrics()
    work(metrics)
    before = scrape(metrics, 100.0)
    work(metrics)
    metrics.worker_restarts.labels("killed").inc()
    metrics.connections_closed.labels("eof").inc()
    seen = figures(before, scrape(metrics, 102.0, READY | {"warnings": {"filters": "old"}}))
    assert (seen.events_in, seen.events_out, seen.dropped, seen.errors) == (500, 350, 100, 50)
    assert (seen.chunks, seen.received_bytes) == (5, 1e6)
    assert seen.queue_seconds == pytest.approx(0.002)
    assert seen.delivery_seconds == pytest.approx(0.004)
    assert seen.in_flight_bytes / seen.in_flight_limit_bytes == 0.25
    assert [(one.name, one.cpu, one.chunks) for one in seen.workers] == [
        ("0", 0.5, 2.5),
        ("1", 0.5, 2.5),
    ]
    assert seen.workers[0].chunk_seconds == pytest.approx(0.1)
    slow, quick = seen.filters
    assert (slow.name, slow.events, slow.dropped, slow.errors) == ("slow", 500, 100, 50)
    assert slow.event_seconds == pytest.approx(0.0008)
    assert (slow.share, quick.share) == (pytest.approx(0.8), pytest.approx(0.1))
    (call,) = seen.calls
    assert (call.method, call.calls, call.failed) == ("Process", 11, 1)
    assert seen.totals == {"workers replaced: killed": 1}
    assert seen.trouble == {"filters": "old"}


def test_after_a_restart_nothing_is_below_zero(monkeypatch):
    old, new = Metrics(), Metrics()
    for _ in range(5):
        work(old)
    work(new)
    before, after = scrape(old, 1.0), scrape(new, 2.0)
    monkeypatch.setattr(
        before, "_samples", before._samples | {"process_start_time_seconds": {(): 1.0}}
    )
    assert figures(before, after).events_in == 1000
    assert figures(scrape(old, 1.0), after).events_in == 0


@pytest.mark.parametrize("trouble", [{}, {"downstream": "connection refused", "workers": "none"}])
@pytest.mark.parametrize(("workers", "filters"), [(1, 1), (2, 3), (64, 2), (2, 40), (64, 40)])
def test_it_fits_into_80_columns_and_24_lines(workers, filters, trouble):
    metrics = Metrics()
    before = scrape(metrics, 0.0)
    names = [f"a_filter_with_a_long_name_{number}" for number in range(filters)]
    work(metrics, names=names, workers=workers)
    metrics.worker_restarts.labels("killed").inc()
    metrics.filter_reloads.labels("ok").inc()
    seen = figures(before, scrape(metrics, 1.0, {"ready": not trouble, "checks": trouble}))
    url = "http://127.0.0.1:24280"
    console = Console(width=80, height=24, file=io.StringIO())
    console.print(Screen(seen, url))
    lines = console.file.getvalue().splitlines()
    assert len(lines) <= 24, len(lines)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for part in ("events/s", "in flight", "Forward", "gRPC", "worker 0", "a_filter_with_a_", "since the start", *trouble.values()):  # fmt: skip
        assert part in text
    assert ("not ready" in text) == bool(trouble)
    whole = Console(width=80, height=24, file=io.StringIO())
    whole.print(Screen(seen, url, whole=True))
    rows = whole.file.getvalue()
    assert rows.count("worker ") == workers, "all of them where there is no screen to fit into"
    assert "more" not in rows


class Fake(ThreadingHTTPServer):
    """An admin port whose sidecar does as much as a test says, and may be away."""

    def __init__(self, metrics, away=False):
        fake = self
        self.metrics, self.away, self.asked = metrics, away, 0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                if fake.away:
                    self.close_connection = True
                    return
                if self.path == "/metrics":
                    fake.asked += 1
                    if fake.asked > 1:
                        work(fake.metrics)
                    body = fake.metrics.render()[0]
                else:
                    body = json.dumps(READY).encode()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def port():
    server = Fake(Metrics())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_once_and_in_a_pipe_it_is_plain(port, capsys):
    for arguments in (["--once"], []):
        assert main(["top", "--url", port.url, "--interval", "0.1", *arguments]) == 0
        shown = capsys.readouterr()
        assert "\x1b" not in shown.out
        assert "slow" in shown.out
        assert shown.err == ""


def test_as_json(port, capsys):
    assert main(["top", "--url", port.url + "/", "--interval", "0.1", "--once", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    seen = msgspec.json.decode(line)
    assert seen["version"]
    assert seen["events_in"] == pytest.approx(1000 / seen["interval"])
    assert [one["name"] for one in seen["filters"]] == ["slow", "quick"]


def test_on_a_terminal_it_goes_on_over_a_restart_until_ctrl_c(port):
    ours, theirs = pty.openpty()
    ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", "bridge", "top", "--url", port.url, "--interval", "0.1"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        | {"TERM": "xterm-256color"},
    ) as process:
        os.close(theirs)
        text = b""

        def read_until(part):
            nonlocal text
            text = b""
            ends = time.monotonic() + 60
            while part not in text:
                assert time.monotonic() < ends, text[-2000:]
                text += os.read(ours, 65536)

        read_until(b"worker 1")
        port.away = True
        read_until(b"no sidecar answers")
        port.away = False
        read_until(b"worker 1")
        process.send_signal(signal.SIGINT)
        while True:
            try:
                text += os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
        assert process.wait(timeout=30) == 0
    os.close(ours)
    assert b"Traceback" not in text
    assert text.rindex(b"\x1b[?1049l") > text.rindex(b"worker 1"), (
        "the screen before is there again"
    )


@pytest.mark.parametrize("command", ["top", "tap"])
def test_where_no_sidecar_is(command, capsys, free_port, port):
    assert main([command, "--url", f"http://127.0.0.1:{free_port()}"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "no sidecar answers at http://127.0.0.1:" in shown.err
    assert "is it running, and is this its admin.port?" in shown.err
    for url in ("127.0.0.1:24280", "ftp://a", "http://", "http://a:b", "http://a:99999"):
        assert main([command, "--url", url]) == 2
        assert f"--url {url}" in capsys.readouterr().err
    port.metrics = type("Other", (), {"render": lambda self: (b"go_threads 7\n",)})()
    port.asked = -99
    assert main([command, "--url", port.url]) == 1
    assert "no sidecar" in capsys.readouterr().err


def test_an_address_may_have_a_path():
    assert Port("https://ops.example/pod-1/").url == "https://ops.example/pod-1"
    with pytest.raises(SettingsError, match="an example: http"):
        Port("ops.example")


def test_what_differs_in_two_records():
    before = {
        "same": {"x": 1, "y": [1, 2]},
        "gone": "a",
        "n": 1,
        "deep": {"a": {"b": 1}},
        "bin": {"$bin": "x"},
    }
    after = {"same": {"x": 1, "y": [1, 2]}, "n": True, "deep": {"a": {"b": 2, "c": {}}}, "bin": {"$bin": "y"}, "new": None}  # fmt: skip
    differ, same = changes(before, after)
    assert same == {"same.x": "1", "same.y": "[1, 2]"}
    assert [tuple(change) for change in differ] == [
        ("gone", '"a"', None),
        ("n", "1", "true"),
        ("deep.a.b", "1", "2"),
        ("bin", '{"$bin": "x"}', '{"$bin": "y"}'),
        ("deep.a.c", None, "{}"),
        ("new", None, "null"),
    ]
    assert changes({"": 1}, {"": 1}) == ([], {"": "1"})
    assert changes({}, {"a": 1}) == ([("a", None, "1")], {})


def test_fields_are_selected_by_path():
    record = {"a": 1, "b": {"c": 2, "d": {"e": 3}}, "x.y": 4, "l": [1]}
    assert select(record, ["a", "b.c", "b.d.e", "x.y", "l", "none", "a.b", "b.none"]) == {
        "a": 1,
        "b": {"c": 2, "d": {"e": 3}},
        "x.y": 4,
        "l": [1],
    }
