"""What a user does wrong at the command line, what is said of it, and what it says to do.

One table for all commands: each row is run. The finer points have tables of their own, beside what
they are about: settings in ``operation/test_settings.py``, filters in ``filters/test_loading.py``,
case files in ``testing/test_case_mistakes.py``, files of events in ``test_samples.py``, topics in
``end_to_end/test_replay.py``. The last tests here hold that none of them leaves an error out.
"""

import ast
import importlib
import os
import pkgutil
import shlex
import socket
import socketserver
import threading
from pathlib import Path
from typing import NamedTuple

import click
import pytest
import structlog
from typer.main import get_command

import bridge
from bridge import errors
from bridge.cli import application, main
from bridge.errors import BridgeError, LoadError, SampleError, SettingsError
from bridge.forward.auth import ServerAuth
from bridge.local.processes import ProgramError
from bridge.local.sink import Sink
from bridge.local.topics import TopicError
from bridge.replay.cluster import ReplayError
from bridge.replay.letters import NotALetter
from bridge.replay.targets import NotSendable
from bridge.rpc.refusal import Refusal
from bridge.tap import TooManyTaps
from bridge.watch.port import Refused, Unreachable
from bridge.workers.generation import FiltersNotLoaded
from bridge.workers.pool import Superseded
from bridge.workers.rescue import Unrunnable
from bridge.workers.worker import WorkerDied

USAGE = click.UsageError
ROOT = Path(__file__).parents[2]

FILTER = {"filters/a.py": 'import bridge\n\n@bridge.filter("ad.**")\ndef enrich(record): ...\n'}
NO_PYTHON = {"filters/a.py": "import bridge\n\ndef enrich(:\n"}
CASE = {"filters/a.cases.yaml": "cases:\n  - tag: ad\n    input: {x: 1}\n    drop: true\n"}
EVENTS = {"e.jsonl": '{"x": 1}\n'}
CUT = {"e.jsonl": '{"x": 1}\n{"x": \n'}
CUT_CHUNK = {"buffer.log": b"\x92\x00\x81\xa1x\x01\x92\x00"}
LETTERS = {
    "d.jsonl": '{"error": {"class": "Reject", "filter": "enrich"}, "tag": "ad",'
    ' "time": "2026-11-22T09:30:00Z", "record": {"id": 1}}\n'
}
DRY = "replay d.jsonl --dry-run"


class Row(NamedTuple):
    """A mistake. In the texts ``{closed}`` and its like are ports, see ``places``.

    Attributes:
        done: what was done wrong.
        command: how it comes to light.
        files: what there is in the folder where it is run.
        raises: the error, as a class.
        says: what is wrong, and where.
        advice: what to do.
        code: the exit code.
    """

    done: str
    command: str
    files: dict[str, str | bytes]
    raises: type[Exception]
    says: str
    advice: str
    code: int = 2


# fmt: off
TABLE = [
    Row("no such command", "chekc", {}, USAGE, "No such command 'chekc'", "Did you mean 'check'?"),
    # Settings.
    Row("a value that is none", "run filters --listen.port x", FILTER, SettingsError, "listen.port: 'x' from flag --listen.port cannot be used", "it must be a whole number from 0 to 65535"),
    Row("a mistyped flag", "run filters --listen.prot 1", FILTER, USAGE, "No such option: --listen.prot", "Possible options: --listen.host, --listen.port"),
    Row("the folder twice", "run filters --filters.path x", FILTER, USAGE, "the folder is given twice", "as the argument and as --filters.path"),
    Row("a file that is away", "settings --config no.yaml", {}, SettingsError, "file no.yaml: cannot be read: No such file", "name one that is there, or leave it out"),
    Row("a mistyped setting", "settings --config c.yaml", {"c.yaml": "listen:\n  prot: 1\n"}, SettingsError, "file c.yaml:2: listen.prot: there is no such setting", "did you mean listen.port?"),
    Row("settings that are no YAML", "settings --config c.yaml", {"c.yaml": "listen:\n  port: [1\n"}, SettingsError, "file c.yaml:3: is not YAML", "correct it there"),
    Row("settings in Latin-1", "settings --config c.yaml", {"c.yaml": b"# \xe9\n"}, SettingsError, "file c.yaml: is not UTF-8", "save it as UTF-8"),
    Row("two forms at once", "settings --json --yaml", {}, USAGE, "--json and --yaml", "exclude each other"),
    # What is there when the sidecar starts.
    Row("a filter that is no Python", "run filters --listen.port 0", NO_PYTHON, FiltersNotLoaded, "filters/a.py:3: it is not Python", "correct this line"),
    Row("no folder of filters", "run nowhere --listen.port 0", {}, LoadError, "nowhere: cannot read the folder of filters: No such file", "set filters.path to where they are"),
    Row("a port that is taken", "run filters --admin.port 0 --listen.port {busy}", FILTER, SettingsError, "listen.host and listen.port: cannot listen there", "choose another port, or end the program that has this one"),
    Row("a file in the socket's place", "run filters --rpc.socket s --listen.enabled false", {**FILTER, "s": ""}, SettingsError, "rpc.socket: s is there and is no socket", "remove it, or name another file"),
    Row("a socket below a file", "run filters --rpc.socket s/s --listen.enabled false", {**FILTER, "s": ""}, SettingsError, "rpc.socket: s/s cannot be used: Not a directory", "name a file in a folder that this user may write to"),
    # A project, and what is in it.
    Row("a project over another", "init", {"README.md": "mine"}, LoadError, "README.md: it is there already", "move it away, or take another folder, as in fluent-bridge init my-filters"),
    Row("a project in a file", "init file", {"file": "mine"}, LoadError, "file: it is no folder", "take another folder"),
    Row("a brace left open", "check filters", {"filters/a.py": FILTER["filters/a.py"].replace("ad.**", "ad.{")}, LoadError, "filters/a.py:3: enrich: the tag pattern 'ad.{{' opens a brace and does not close it", "white space ends a pattern, so none may stand between braces"),
    Row("a mistyped key of a case", "check filters", {**FILTER, "filters/a.cases.yaml": "cases:\n  - tga: ad\n"}, LoadError, "filters/a.cases.yaml:2: a case has no key 'tga'", "did you mean 'tag'?"),
    Row("settings and filters wrong", "check filters --listen.port x", NO_PYTHON, LoadError, "error: listen.port: 'x' from flag", "filters/a.py:3: it is not Python"),
    Row("no configuration there", "check filters --fluentd-conf no.conf", FILTER, LoadError, "no.conf: cannot be read: No such file", "give Fluentd's configuration file"),
    Row("no cases", "test filters", FILTER, LoadError, "filters: no case files", "put a file that ends in .cases.yaml beside the filters"),
    Row("no such folder of cases", "test nowhere", {}, LoadError, "nowhere: there is no such folder or file", "name the folder that has the case files"),
    Row("a filter's name mistyped", "test filters --filter enrihc", FILTER | CASE, LoadError, "filters: no filter is called enrihc", "did you mean enrich?"),
    Row("a text in no case's name", "test filters -k crawler", FILTER | CASE, LoadError, "filters: no case fits -k crawler", "leave that out to run all of them"),
    Row("cases of a filter that is no Python", "test filters", NO_PYTHON | CASE, LoadError, "filters/a.py:3: it is not Python", "correct this line"),
    # Files of events.
    Row("no such file", "feed no.jsonl --tag ad --filters filters", FILTER, SampleError, "no.jsonl: cannot be read: No such file", "give a file of events, or - for standard input"),
    Row("a line that is no JSON", "feed e.jsonl --tag ad --filters filters", FILTER | CUT, SampleError, "e.jsonl:2: not a JSON object", "correct this line, or take it out"),
    Row("a comma too many", "feed e.csv --tag ad --filters filters", {**FILTER, "e.csv": "a,b\n1,2\n1,2,3\n"}, SampleError, "e.csv:3: 3 fields, the header has 2", 'a text with a comma or a newline stands in "quotes"'),
    Row("a table in Latin-1", "feed e.csv --tag ad --filters filters", {**FILTER, "e.csv": b"a\n\xe9\n"}, SampleError, "e.csv: not CSV in UTF-8", "save it as UTF-8, for instance by iconv"),
    Row("a file of no known format", "feed e.dat --tag ad --filters filters", {**FILTER, "e.dat": "hello"}, SampleError, "e.dat: its format cannot be told from its first bytes (b'hello')", "say which it is with --format msgpack|jsonl|json|csv"),
    Row("a broken archive", "feed e.gz --tag ad --filters filters", {**FILTER, "e.gz": b"\x1f\x8bhello"}, SampleError, "e.gz: cannot be read: Compressed file ended", "copy it anew"),
    Row("no tag", "feed e.jsonl --filters filters", FILTER | EVENTS, USAGE, "the file does not say which tag its events have", "say it with --tag"),
    Row("a chunk that was cut off", "decode buffer.log", CUT_CHUNK, SampleError, "buffer.log, byte 6: the file ends in the middle of an event", "it was cut off, or is still being written", 1),
    Row("a chunk that is none", "decode buffer.log", {"buffer.log": b"\xc1"}, errors.NotAnEvent, "buffer.log, byte 0: not msgpack: it holds the byte 0xc1", "is the file msgpack? Say what it is with --format", 1),
    Row("two forms of values", "decode --json --values", {}, USAGE, "--json and --values exclude each other", "values have no time"),
    Row("nothing to measure with", "bench filters --sample e.jsonl --tag ad", {**FILTER, "e.jsonl": ""}, SampleError, "e.jsonl: holds no event, and so nothing to measure with", "give a file of events"),
    Row("a tag that no filter is for", "bench filters --sample e.jsonl --tag b", FILTER | EVENTS, USAGE, "no filter applies to the tag b", "--tag; there are enrich (ad.**)"),
    Row("a rate in words", "bench filters --sample e.jsonl --tag ad --target-rate much", FILTER | EVENTS, USAGE, "--target-rate much is no number of events a second", "as in 200000, 200k or 1.5M"),
    # Sidecars and others that are sent to.
    Row("a sidecar that is away", "feed e.jsonl --tag ad --to 127.0.0.1:{closed}", EVENTS, errors.ConnectionLost, "cannot connect to 127.0.0.1:{closed}: [Errno 111] Connection refused", "Does a server listen there, without TLS?", 1),
    Row("an address that is none", "feed e.jsonl --tag ad --to here:x", EVENTS, USAGE, "--to here:x is no HOST:PORT", "as in 127.0.0.1:24224"),
    Row("two targets", "feed e.jsonl --tag ad --to a:1 --socket b", EVENTS, USAGE, "--to, --socket and --filters", "exclude each other"),
    Row("a socket that is away", "feed e.jsonl --tag ad --socket no.sock", EVENTS, errors.DeliveryError, "there is no socket no.sock", "does a sidecar run with --rpc.socket no.sock?", 1),
    Row("no shared key", "feed e.jsonl --tag ad --to 127.0.0.1:{locked}", EVENTS, errors.AuthenticationError, "the server asks for a shared key", "set it", 1),
    Row("the wrong key", "feed e.jsonl --tag ad --config c.yaml --to 127.0.0.1:{locked}", {**EVENTS, "c.yaml": "listen: {shared_key: wrong}\n"}, errors.AuthenticationError, "127.0.0.1:{locked}: the server refused: shared_key mismatch", "set the same shared key, user and password on both ends", 1),
    Row("a socket of something else", "feed e.jsonl --tag ad --timeout 0.1 --socket {socket}", EVENTS, errors.DeliveryError, "no sidecar answers at {socket}: DEADLINE_EXCEEDED", "see its log, or start it", 1),
    Row("a server that says nothing", "feed e.jsonl --tag ad --timeout 0.1 --to 127.0.0.1:{silent}", EVENTS, errors.NotAcknowledged, "127.0.0.1:{silent} did not acknowledge within 0.1 s", "send 1 chunks again", 1),
    Row("a web server", "feed e.jsonl --tag ad --to 127.0.0.1:{web}", EVENTS, errors.ProtocolError, "127.0.0.1:{web}: the server sent what is no acknowledgement", "is this the port of a Forward server?", 1),
    Row("a user without a password", "feed e.jsonl --tag ad --username ann", EVENTS, SettingsError, "--username ann needs listen.shared_key", "set FLUENT_BRIDGE_LISTEN__SHARED_KEY and"),
    Row("files for TLS alone", "feed e.jsonl --tag ad --tls-ca-file ca.pem", EVENTS, USAGE, "files for TLS are given, but not --tls", "nothing would use them"),
    Row("no authorities", "feed e.jsonl --tag ad --tls --tls-ca-file ca.pem", EVENTS, SettingsError, "--tls-ca-file, --tls-cert-file or --tls-key-file cannot be used", "give certificates and the key that belongs to them in PEM"),
    Row("standard input twice", "feed - --repeat 2", {}, USAGE, "standard input comes once", "--repeat needs a file"),
    Row("nobody to look at", "tap --url http://127.0.0.1:{closed}", {}, Unreachable, "no sidecar answers at http://127.0.0.1:{closed}: Connection refused", "is this its admin.port? For a pod: kubectl port-forward POD 24280", 1),
    Row("something else to look at", "tap --url http://127.0.0.1:{web}", {}, Refused, "http://127.0.0.1:{web} has no /tap", "is it a sidecar, and a new one?", 1),
    Row("an address of something else", "top --url ftp://x", {}, SettingsError, "--url ftp://x is no address of a sidecar", "an example: http://127.0.0.1:24280"),
    Row("no time between looks", "top --interval 0", {}, USAGE, "Invalid value for '--interval'", "should be greater than or equal to 0.1"),
    # Dead letters.
    Row("from nowhere", "replay --dry-run", {}, USAGE, "give either a FILE", "or --from-topic"),
    Row("to nowhere", "replay d.jsonl", LETTERS, USAGE, "give either --to-topic or --to", "or --dry-run to look only"),
    Row("no file of letters", "replay no.jsonl --dry-run", {}, SettingsError, "no.jsonl is no file", "name the file that the letters are in"),
    Row("what is no letter", DRY, {"d.jsonl": '{"x": 1}\n'}, NotALetter, "d.jsonl: letter 1: no dead letter", "it has no field 'error' with a 'class', as a dead letter has", 1),
    Row("a field mistyped", DRY + " --where error.clas=x", LETTERS, USAGE, "a letter has no 'error.clas'", "did you mean 'error.class'?"),
    Row("what is no condition", DRY + " --where enrich", LETTERS, USAGE, "'enrich' is no condition", "write it as 'error.class=Reject'"),
    Row("a parenthesis left open", DRY + " --where error.message~(", LETTERS, USAGE, "'(' is no regular expression", "goes before a sign that stands for itself"),
    Row("a time in words", DRY + " --since yesterday", LETTERS, USAGE, "'yesterday' is no time", "write 2026-11-22T09:30:00Z, or how long ago: 30m, 2h, 7d"),
    Row("what is no ledger", DRY + " --ledger l", {**LETTERS, "l": "x\n"}, SettingsError, "l is no ledger of a replay", "name another with --ledger"),
    Row("a server that is away", "replay d.jsonl --to 127.0.0.1:{closed}", LETTERS, errors.ConnectionLost, "cannot connect to 127.0.0.1:{closed}", "Does a server listen there", 1),
    Row("no broker", "replay d.jsonl --to-topic ad --brokers 127.0.0.1:{closed}", LETTERS, ReplayError, "no Kafka broker answers at 127.0.0.1:{closed}", "Give --brokers, and what else it takes (TLS, SASL) with --kafka-config", 1),
    Row("no file of options", "replay d.jsonl --to-topic ad --kafka-config k", LETTERS, SettingsError, "k cannot be read: No such file", "give --kafka-config a text file of lines name=value"),
    Row("an option with a space", "replay d.jsonl --to-topic ad --kafka-config k", {**LETTERS, "k": "# TLS\nsecurity.protocol SSL\n"}, SettingsError, "k:2: 'security.protocol SSL'", "write name=value"),
    Row("an option mistyped", "replay d.jsonl --to-topic ad --kafka-config k", {**LETTERS, "k": "secruity.protocol=SSL\n"}, SettingsError, 'No such configuration property: "secruity.protocol"', "correct it in the file that --kafka-config names"),
    Row("an option that is needed", "replay d.jsonl --to-topic ad --kafka-config k", {**LETTERS, "k": "enable.idempotence=false\n"}, SettingsError, "k:1: leave enable.idempotence out", "that each letter goes once rests on it"),
    # The demonstration.
    Row("no events", "demo --events 0", {}, USAGE, "Invalid value for '--events'", "should be greater than or equal to 1"),
    Row("programs that do not run", "demo --events 1", dict.fromkeys(("bin/fluentd", "bin/kafka-server-start.sh", "bin/kafka-storage.sh"), "#!/bin/sh\necho no Java\nexit 1\n"), ProgramError, "kafka-storage.sh failed:\nno Java", "Without these programs on the PATH there are stand-ins", 1),
]
# fmt: on

# Errors that no command shows, and why.
ELSEWHERE = {
    errors.MessageTooLarge: "a peer's: runtime/test_hostile.py",
    errors.Verdict: "the root of what filters decide",
    errors.Reject: "a filter's decision",
    errors.Retry: "a filter's decision",
    TooManyTaps: "what the sidecar answers: runtime/test_tap.py",
    NotSendable: "takes a topic, or what only a broken pipeline writes: test_replay_command.py",
    Refusal: "what the sidecar answers: rpc/test_rpc_trouble.py",
    WorkerDied: "the chunk is run again: runtime/test_rescue.py",
    Unrunnable: "a chunk's: runtime/test_rescue.py",
    Superseded: "the chunk is run again: runtime/test_reload.py",
    TopicError: "the demonstration's broker went away, or a test's",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in os.environ:
        if name.startswith(("FLUENT_BRIDGE_", "KAFKA_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path)
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Ports: ``closed``, ``busy``, and of servers that are ``locked``, ``silent`` or of the web."""
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(path := str(tmp_path_factory.mktemp("s") / "s"))
    unix.listen()

    class NotFound(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(1 << 16)
            self.request.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            self.request.recv(1 << 16)  # until the client ends it

    auth = ServerAuth(hostname="sink", shared_key="key")
    web = socketserver.ThreadingTCPServer(("127.0.0.1", 0), NotFound)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))  # not listening, and nobody else's while it is held
    busy = silent = socket.create_server(("127.0.0.1", 0))
    with closed, silent, unix, Sink(lambda _: None, auth=auth) as sink:
        yield {
            "closed": closed.getsockname()[1],
            "busy": busy.getsockname()[1],
            "silent": silent.getsockname()[1],
            "locked": sink.port,
            "web": web.server_address[1],
            "socket": path,
        }
    web.shutdown()
    web.server_close()


@pytest.fixture
def raised(monkeypatch):
    """The classes of all errors made."""
    classes = []

    def note(cls, *arguments, **_):
        classes.append(cls)
        return Exception.__new__(cls, *arguments)

    monkeypatch.setattr(BridgeError, "__new__", note)
    return classes


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.command.split()[0]}: {row.done}")
def test_mistake(row, places, raised, tmp_path, monkeypatch, capsys):
    for name, text in row.files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    code = main(shlex.split(row.command.format(**places)))
    shown = capsys.readouterr().err
    assert row.says.format(**places) in shown
    assert row.advice.format(**places) in shown
    assert code == row.code
    assert "Traceback" not in shown
    assert (row.raises in raised) if issubclass(row.raises, BridgeError) else not raised


def test_every_command_is_in_the_table():
    commands = set(get_command(application()).commands)
    assert commands <= {row.command.split()[0] for row in TABLE}


def modules():
    for module in pkgutil.walk_packages(bridge.__path__, "bridge."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return sorted(Path(bridge.__file__).parent.rglob("*.py"))


def kinds(root=BridgeError):
    for each in root.__subclasses__():
        if each.__module__.startswith("bridge."):
            yield each
            yield from kinds(each)


def test_every_error_is_in_the_table():
    modules()
    inside = {row.raises for row in TABLE} - {USAGE}
    assert not inside & set(ELSEWHERE)
    assert inside | set(ELSEWHERE) == set(kinds())


LENGTH = 12  # characters of a message that make it known again
# What no test can bring about in the time that it has, and what only this project's own programs
# and tests come to see.
UNTOLD = {
    "bridge/local/processes.py": {
        " has not been started",
        " runs already, as process ",
        " was not ready within ",
    },
    "bridge/local/topics.py": {", and not yet what was waited for"},
    "bridge/replay/targets.py": {" did not take "},
}


def words(node):
    """The texts in a piece of code."""
    return [
        each.value
        for each in ast.walk(node)
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    ]


def test_some_test_holds_every_message():
    """Each place in the code that makes an error has words that a test waits for."""
    files = modules()
    tests = "\0".join(
        text
        for file in (ROOT / "tests").rglob("*.py")
        for text in words(ast.parse(file.read_text()))
    )
    names = {each.__name__ for each in kinds()} | {"BadParameter", "mistake"}
    unknown = []
    for file in files:
        place = str(file.relative_to(ROOT))
        for call in ast.walk(ast.parse(file.read_text())):
            if not isinstance(call, ast.Call):
                continue
            name = getattr(call.func, "attr", getattr(call.func, "id", None))
            said = [text for text in words(call) if len(text) >= LENGTH]
            pieces = (text[n : n + LENGTH] for text in said for n in range(len(text) - LENGTH + 1))
            if name not in names or not said or UNTOLD.get(place, set()) & set(words(call)):
                continue
            if not any(piece in tests for piece in pieces):
                unknown.append(f"{place}:{call.lineno}: {said}")
    assert not unknown, "\n".join(unknown)
