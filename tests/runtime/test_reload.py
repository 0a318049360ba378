"""Changed filters take over without an event lost, delayed or run twice; wrong ones never do."""

import contextlib
import json
import os
import shutil
import signal
import sys
import textwrap
import time
import urllib.request

import pytest

from bridge.forward import Client
from bridge.local.processes import Program
from bridge.local.sink import Sink

STAMP = """
VERSION = {}

@bridge.filter("ad.**")
def stamp(record: dict) -> dict:
    if record.get("fail"):
        raise RuntimeError("as asked")  # VERSION {}
    record["v"] = VERSION
    return record
"""


def stamp(version):
    return STAMP.format(version, version)


def wait_until(condition, timeout=30):
    ends = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.02)


class Watched:
    """A Rig, and the folder of filters that its sidecar looks at twenty times a second."""

    def __init__(self, rig, filters=None, **settings):
        chosen = {"filters__reload_interval": 0.05, "workers__count": 1} | settings
        self.rig = rig(filters or stamp(1), **chosen)
        self.sidecar = self.rig.sidecar
        self.folder = self.rig.folder
        self.file = self.folder / "filters.py"

    def write(self, text, name="filters.py"):
        """Write a file in place."""
        (self.folder / name).write_text("import bridge\n" + textwrap.dedent(text))

    def replace(self, text):
        """Write a file as editors do, under another name that is then its own."""
        self.write(text, ".filters.py.swp")
        (self.folder / ".filters.py.swp").replace(self.file)

    def reloads(self, result="ok"):
        name = f"fluent_bridge_filter_reloads_total{{result={result}}}"
        return self.sidecar.metrics()[name]

    def outdated(self):
        return self.sidecar.metrics()["fluent_bridge_filters_outdated"]

    def wait_reloaded(self, times=1, result="ok"):
        wait_until(lambda: self.reloads(result) >= times)

    def ask(self):
        os.kill(self.sidecar.pid, signal.SIGHUP)

    def send(self, *records, tag="ad.click"):
        """Send events, and return the records that came out for them."""
        before = len(self.rig.received.records(tag))
        with Client("127.0.0.1", self.rig.port, timeout=60) as client:
            client.send(tag, list(records))
        return self.rig.received.records(tag)[before:]

    def version(self):
        (record,) = self.send({})
        return record["v"]

    def readyz(self):
        url = f"http://127.0.0.1:{self.sidecar.admin}/readyz"
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.status == 200
            return json.load(answer)


@pytest.fixture
def watched(rig):
    """A function like Watched."""
    return lambda *args, **settings: Watched(rig, *args, **settings)


def test_an_edit_a_rename_a_new_file_a_helper_and_a_table(watched):
    running = watched()
    running.write(stamp(2))
    running.wait_reloaded(1)
    assert running.version() == 2
    running.replace(stamp(3))
    running.wait_reloaded(2)
    assert running.version() == 3
    (running.folder / "sites.txt").write_text("one")
    running.wait_reloaded(3)
    running.write(
        """
        from pathlib import Path
        from _helper import WORD
        TABLE = (Path(__file__).parent / "sites.txt").read_text()

        @bridge.filter("ad.**", name="more")
        def more(record: dict) -> dict:
            return record | {"table": TABLE, "word": WORD}
        """,
        "more.py",
    )
    running.wait_reloaded(1, "failed")  # the helper is not there yet
    running.write("WORD = 'a'", "_helper.py")
    running.wait_reloaded(4)
    assert running.send({}) == [{"v": 3, "table": "one", "word": "a"}]
    running.write("WORD = 'b'", "_helper.py")
    running.wait_reloaded(5)
    (running.folder / "sites.txt").write_text("two")
    running.wait_reloaded(6)
    assert running.send({}) == [{"v": 3, "table": "two", "word": "b"}]
    (running.folder / "more.py").unlink()
    running.wait_reloaded(7)
    assert running.send({}) == [{"v": 3}]
    line = running.rig.log("filters reloaded", timeout=5)[-1]
    assert (line["files"], line["removed"]) == (["more.py"], ["more (ad.**)"])


def test_what_is_no_change_reloads_nothing(watched):
    running = watched()
    os.utime(running.file)
    running.write(stamp(1))
    running.write("", "test_filters.py")
    time.sleep(0.5)  # ten looks
    running.write(stamp(2))
    running.wait_reloaded()
    assert (running.reloads(), running.reloads("failed")) == (1, 0)


def test_a_file_is_not_taken_while_it_is_written(watched):
    running = watched(filters__reload_interval=0.4)
    with running.file.open("w") as file:
        for line in ("import bridge\n", *stamp(2).splitlines(keepends=True)):
            file.write(line)
            file.flush()
            time.sleep(0.1)
    running.wait_reloaded()
    assert (running.reloads(), running.reloads("failed")) == (1, 0)
    assert running.version() == 2


def test_the_symlink_swap_of_a_config_map(watched):
    running = watched()

    def mount(version):
        """Do what the kubelet does: a new folder, a link to it swapped in, the old folder away."""
        data = running.folder / f"..2026_{version}"
        data.mkdir()
        (data / "filters.py").write_text("import bridge\n" + stamp(version))
        link = running.folder / "..data"
        old = link.resolve() if link.exists() else None
        (running.folder / "..data_tmp").symlink_to(data.name)
        (running.folder / "..data_tmp").replace(link)
        if old:
            shutil.rmtree(old)

    mount(2)
    (running.folder / ".swap").symlink_to("..data/filters.py")
    (running.folder / ".swap").replace(running.file)
    running.wait_reloaded(1)
    for version in (3, 4):
        mount(version)
        running.wait_reloaded(version - 1)
        assert running.version() == version
    for pid in running.sidecar.worker_pids:
        os.kill(pid, signal.SIGKILL)
    assert running.version() == 4


WRONG = [
    ("def f(:\n", "filters.py:2: it is not Python"),
    ("\n1 / 0\n", "filters.py:3: ZeroDivisionError"),
    ("import no_such_module\n", "filters.py:2: ModuleNotFoundError"),
    ("x = 1\n", "no filter found"),
    (
        "@bridge.filter('ad.**')\nclass C:\n    def __call__(self, r): ...\n    def __init__(self): {}['a']\n",
        "filters.py:5: C: its __init__ raised KeyError",
    ),
    ("import os\nos._exit(3)\n", "a worker ended while it loaded: ended with exit code 3"),
    ("import time\ntime.sleep(3600)\n", "not loaded within 2 s"),
]


def test_what_cannot_be_loaded_leaves_the_old_filters_in_charge(watched):
    running = watched(workers__start_timeout=2)
    for count, (text, mistake) in enumerate(WRONG, 1):
        running.write(text)
        running.wait_reloaded(count, "failed")
        assert running.outdated() == 1
        line = running.rig.log("filters not reloaded, those from before go on", timeout=5)[-1]
        assert mistake in " ".join(line["mistakes"]), line
        answer = running.readyz()
        assert answer["ready"]
        assert mistake in answer["warnings"]["filters"]
        assert running.version() == 1
    time.sleep(0.3)
    assert running.reloads("failed") == len(WRONG), "each is tried once"
    wait_until(lambda: len(running.sidecar.worker_pids) == 1)
    running.write(stamp(1))  # what runs: nothing is to be loaded
    wait_until(lambda: running.outdated() == 0)
    assert "warnings" not in running.readyz()
    running.write("def f(:\n")
    running.wait_reloaded(len(WRONG) + 1, "failed")
    running.write(stamp(2))
    running.wait_reloaded()
    assert (running.version(), running.outdated()) == (2, 0)


def test_a_worker_that_dies_while_the_files_are_broken_is_replaced_with_the_old_code(watched):
    running = watched()
    running.write("NAME = 'old helper'", "_helper.py")
    running.write("from _helper import NAME\n" + stamp("NAME"))
    running.wait_reloaded()
    for name in ("_helper.py", "filters.py"):
        running.write("def f(:\n" * 20, name)
    running.wait_reloaded(1, "failed")
    old = set(running.sidecar.worker_pids)
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    assert running.version() == "old helper"
    assert not old & set(running.sidecar.worker_pids)
    running.send({"fail": True})
    (letter,) = running.rig.received.records("error.ad.click")
    assert f'File "{running.file}", line 9, in stamp' in letter["error"]["traceback"]
    assert "# VERSION NAME" in letter["error"]["traceback"], "the line that ran"
    (running.folder / "filters.py").unlink()
    (running.folder / "_helper.py").unlink()
    running.folder.rmdir()
    running.wait_reloaded(2, "failed")
    assert "cannot read the folder of filters" in running.readyz()["warnings"]["filters"]
    os.kill(running.sidecar.worker_pids[0], signal.SIGKILL)
    assert running.version() == "old helper"


def test_the_old_workers_finish_what_they_have(watched):
    running = watched(
        """
        import os, time

        @bridge.filter("ad.**")
        def stamp(record: dict) -> dict:
            while not os.path.exists(record.get("gate", "/")):
                time.sleep(0.01)
            return record | {"v": 1}
        """,
    )
    gate = running.folder.parent / "gate"
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(Client("127.0.0.1", running.rig.port, window=9)) for _ in "ab"
        ]
        clients[0].send("ad.slow", [{"gate": str(gate)}])
        wait_until(lambda: running.sidecar.metrics()["fluent_bridge_received_chunks_total"] == 1)
        clients[1].send("ad.waits", [{}])  # in the worker's socket already
        time.sleep(0.2)
        old = running.sidecar.worker_pids
        running.write(stamp(2))
        running.wait_reloaded()
        assert running.version() == 2, "served while the old worker is still at it"
        assert set(old) < set(running.sidecar.worker_pids)
        assert not running.rig.received.counts["ad.slow"]
        gate.touch()
        for client in clients:
            client.flush()
    assert running.rig.received.records("ad.slow") == [{"gate": str(gate), "v": 1}]
    assert running.rig.received.records("ad.waits") == [{"v": 1}]
    wait_until(lambda: len(running.sidecar.worker_pids) == 1)
    metrics = running.sidecar.metrics()
    assert not metrics.get("fluent_bridge_retried_chunks_total")
    assert not metrics.get("fluent_bridge_worker_restarts_total")


def test_an_old_worker_that_does_not_end_is_ended(watched):
    running = watched(
        """
        import time

        @bridge.filter("ad.**")
        class Sleepy:
            def __call__(self, record): return record
            def close(self): time.sleep(3600)
        """,
        workers__deadline=1,
    )
    old = set(running.sidecar.worker_pids)
    running.write(stamp(2))
    running.wait_reloaded()
    wait_until(lambda: not old & set(running.sidecar.worker_pids))


def test_a_fix_takes_effect_for_the_chunk_that_ends_workers(watched):
    running = watched(
        """
        import time

        @bridge.filter("ad.**")
        def stamp(record: dict) -> dict:
            while record["id"] % 25 == 9:
                time.sleep(1)
            return record | {"v": 1}
        """,
        workers__deadline=1,
    )
    with Client("127.0.0.1", running.rig.port, timeout=60, window=2) as client:
        client.send("ad.click", [{"id": number} for number in range(500)])
        running.rig.log("event ends workers, it goes to the error stream", timeout=20)
        running.write(stamp(2))
        client.flush()
    # None of it by the old filters: half a chunk is not for filters over all events of one.
    records = running.rig.received.records("ad.click")
    assert records == [{"id": number, "v": 2} for number in range(500)]
    assert not running.rig.received.counts["error.ad.click"]


def test_of_many_changes_the_last_one_wins(watched):
    running = watched()
    for version in range(2, 32):
        running.replace(stamp(version))
        running.ask()
        time.sleep(0.02)
    wait_until(lambda: running.version() == 31)
    time.sleep(0.3)
    assert running.reloads() + running.reloads("failed") < 20, "they do not pile up"
    assert running.version() == 31
    wait_until(lambda: len(running.sidecar.worker_pids) == 1)


def test_without_reload_only_a_signal_loads(watched):
    running = watched(filters__reload="false")
    running.write(stamp(2))
    time.sleep(0.5)
    assert running.version() == 1
    running.ask()
    running.wait_reloaded()
    assert running.version() == 2
    os.kill(running.sidecar.pid, signal.SIGUSR2)  # as Fluentd has it; also where nothing changed
    running.wait_reloaded(2)
    assert running.version() == 2


def test_dev_says_what_changed(tmp_path, free_port):
    folder = tmp_path / "filters"
    folder.mkdir()
    file = folder / "10_a.py"
    file.write_text("import bridge\n" + stamp(1))
    with Sink(lambda chunk: None) as sink:
        admin = free_port()
        flags = {"listen.port": 0, "admin.port": admin, "downstream.port": sink.port}
        sidecar = Program(
            [sys.executable, "-m", "bridge", "run", str(folder), "--dev"]
            + [f"--{name}={value}" for name, value in flags.items()],
            log=tmp_path / "log",
        )
        sidecar.start(lambda: "workers=1" in sidecar.output(), timeout=60)
        try:
            file.write_text("import bridge\n" + stamp(1).replace("ad.**", "web.[x]"))
            said = "reloaded: 10_a.py changed; 1 filter, "
            wait_until(lambda: said in sidecar.output())
            assert "\n  ~ stamp (ad.** → web.[x])\n" in sidecar.output()
            file.write_text("import bridge\ndef\n")
            wait_until(lambda: "error: " in sidecar.output())
            mistakes = sidecar.output().partition("not reloaded: ")[2].splitlines()
            assert mistakes[0] == "10_a.py changed, the filters from before go on"
            assert mistakes[1].startswith(f"error: {file}:2: it is not Python: ")
            (folder / "20_b.py").write_text(
                "import bridge\n" + stamp(1).replace("def stamp", "def b")
            )
            file.unlink()
            wait_until(lambda: "\n  + b (ad.**)\n  - stamp (web.[x])\n" in sidecar.output())
        finally:
            assert sidecar.stop() == 0
