"""Looking at the events of a sidecar in processes of its own, by the command."""

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time

import pytest

from bridge.forward import Client

FILTERS = """
import os, signal
calls = bridge.counter("calls", "Calls of the function.", labels=("id",))

@bridge.filter("ad.**")
def act(record: dict):
    calls.inc(id=str(record["id"] % 10))
    match record.get("do"):
        case "drop": return None
        case "fail": raise bridge.Reject("not wanted")
        case "kill": os.kill(os.getpid(), signal.SIGKILL)
        case "fan": return [bridge.Event("copies", 7, record), record]
    record["seen"] = True
    return record
"""


class Tapping:
    """A running `fluent-bridge tap`."""

    def __init__(self, rig, *arguments, **options):
        before = len(rig.log("tap opened"))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bridge", "tap", "--url", url(rig), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )
        while len(rig.log("tap opened")) == before:
            assert self.process.poll() is None, self.process.stderr.read()
            time.sleep(0.02)

    def end(self, number=None, timeout=30):
        """Return the exit code, the events printed, and what stood on stderr."""
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=timeout)
        return (
            self.process.returncode,
            [json.loads(line) for line in out.splitlines()],
            err.decode(),
        )


@pytest.fixture
def tap():
    made = []

    def start(*arguments, **options):
        made.append(Tapping(*arguments, **options))
        return made[-1]

    yield start
    for one in made:
        one.process.kill()
        one.process.communicate()


def url(rig):
    return f"http://127.0.0.1:{rig.sidecar.admin}"


def send(rig, *records, tag="ad.click"):
    with Client("127.0.0.1", rig.port) as client:
        client.send(tag, list(records))


def test_what_came_and_what_became_of_it(rig, tap):
    rig = rig(FILTERS, workers__count=1)
    everything = tap(rig, "ad.**", "--limit", "5", "--fields", "id,do,user.name,seen")
    other = tap(rig, "other.*")
    errors = tap(rig, "--errors")
    send(rig, {"id": 9}, tag="unseen")
    send(
        rig,
        {"id": 1, "user": {"name": "Zoë", "age": 3}},
        {"id": 2, "do": "drop"},
        {"id": 3, "do": "fail"},
        {"id": 4, "do": "fan"},
        {"id": 5},
    )
    code, events, err = everything.end()
    assert (code, err) == (0, "")
    assert [(event["record"]["id"], event["outcome"]) for event in events] == [
        (1, "changed"),
        (2, "dropped"),
        (3, "error"),
        (4, "changed"),
        (5, "changed"),
    ]
    assert events[0]["record"] == {"id": 1, "user": {"name": "Zoë"}}
    assert events[0]["results"][0]["record"] == {"id": 1, "user": {"name": "Zoë"}, "seen": True}
    assert events[2]["errors"][0]["message"] == "not wanted"
    assert [result["tag"] for result in events[3]["results"]] == ["ad.click", "copies"]
    send(rig, {"id": 6, "do": "kill"}, {"id": 7})
    rig.received.wait_for(lambda received: received.counts["error.ad.click"] == 2)
    assert other.end(signal.SIGINT)[:2] == (0, []), "Ctrl-C is how it ends"
    code, events, _ = errors.end(signal.SIGINT)
    assert code == 0
    assert [(event["record"]["id"], event["errors"][0]["class"]) for event in events] == [
        (3, "Reject"),
        (6, "WorkerKilled"),
    ]


def test_under_load_nothing_runs_twice_and_whoever_does_not_read_is_left_behind(rig, tap):
    rig = rig(FILTERS)
    taps = [tap(rig, "--rate", "100"), tap(rig, "--errors", "--rate", "100")]
    with socket.create_connection(("127.0.0.1", rig.sidecar.admin)) as silent:
        silent.sendall(
            b"GET /tap?rate=100 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )  # and reads nothing
        records = [
            {"id": i, "do": "fail" if i % 100 == 0 else "", "pad": "x" * 50} for i in range(1000)
        ]
        with Client("127.0.0.1", rig.port, window=8) as client:
            for _ in range(40):
                client.send("ad.click", records)
            client.flush()
    metrics = rig.sidecar.metrics()
    assert metrics["fluent_bridge_received_events_total"] == 40_000
    assert metrics["calls_total"] == 40_000, "each event went through the function once"
    assert metrics["fluent_bridge_error_events_total"] == 400
    assert metrics["fluent_bridge_emitted_events_total"] == 39_600
    for one, kind in zip(taps, ("changed", "error"), strict=True):
        code, events, _ = one.end(signal.SIGINT)
        assert code == 0
        assert events
        assert len(events) < 10_000, "sampled"
        for event in events:
            if event["record"]["id"] % 100 == 0:
                assert event["outcome"] == "error"
                assert event["results"] == []
            else:
                assert kind == event["outcome"] == "changed"
                assert event["results"][0]["record"] == event["record"] | {"seen": True}


def test_it_ends_with_the_sidecar_and_says_how(rig, tap):
    rig = rig(FILTERS)
    clean = tap(rig)
    send(rig, {"id": 1})
    assert rig.sidecar.stop() == 0
    code, events, err = clean.end()
    assert (code, err) == (0, "")
    assert [event["record"] for event in events] == [{"id": 1}]
    rig.sidecar.start()
    lost = tap(rig)
    rig.sidecar.kill()
    code, events, err = lost.end()
    assert (code, events) == (1, [])
    assert "lost" in err or "no sidecar answers" in err
    assert "Traceback" not in err
    nobody = subprocess.run(
        [sys.executable, "-m", "bridge", "tap", "--url", url(rig)], capture_output=True, timeout=60
    )
    assert (nobody.returncode, nobody.stdout) == (1, b"")
    assert b"is it running" in nobody.stderr


def test_on_a_terminal_it_is_drawn(rig):
    rig = rig(FILTERS, workers__count=1)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "bridge", "tap", "--url", url(rig), "--limit", "2"],
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"},
    ) as process:
        os.close(theirs)
        assert rig.log("tap opened", timeout=30)
        send(rig, {"id": 1, "ctrl": "\x1b[31m\x9b1m"}, {"id": 2, "do": "fail"})
        text = b""
        while select.select([ours], [], [], 30)[0]:
            try:
                text += os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
    os.close(ours)
    assert process.returncode == 0
    shown = text.decode()
    for part in ("ad.click", "changed", "seen", "true", "error", "Reject", "not wanted", "in act"):
        assert part in shown
    assert "\x1b[" in shown, "coloured"
    assert "\x1b[31m\x9b1m" not in shown
    assert r"\u001b[31m\u009b1m" in shown, (
        "what is in a record does not reach the terminal as it is"
    )
