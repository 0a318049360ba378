"""Every setting comes from the right source, and every mistake is named."""

import pickle
import re
from pathlib import Path

import pytest

from bridge.errors import SettingsError
from bridge.settings import Settings, catalogue
from bridge.settings.catalogue import nearest

GEM = Path(__file__).parents[2] / "fluent-conf/fluent-plugin-bridge/lib/fluent/plugin/bridge"
FILE = "listen:\n  port: 3\n"
FLAG = ["--listen.port", "1"]
VARIABLE = {"FLUENT_BRIDGE_LISTEN__PORT": "2"}


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "bridge.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


@pytest.mark.parametrize(
    ("argv", "environ", "text", "port", "origin"),
    [
        (FLAG, VARIABLE, FILE, 1, "flag --listen.port"),
        (FLAG, {}, FILE, 1, "flag --listen.port"),
        (["--listen.port=1"], VARIABLE, "", 1, "flag --listen.port"),
        ([], VARIABLE, FILE, 2, "environment FLUENT_BRIDGE_LISTEN__PORT"),
        ([], VARIABLE, "", 2, "environment FLUENT_BRIDGE_LISTEN__PORT"),
        ([], {}, FILE, 3, "file {file}:2"),
        ([], {}, "", 24224, "default"),
        ([], {}, "listen:\n", 24224, "default"),
    ],
)
@pytest.mark.parametrize("named_by", ["flag", "variable"])
def test_precedence(file, argv, environ, text, port, origin, named_by):
    path = file(text)
    if named_by == "flag":
        argv = [*argv, "--config", path]
    else:
        environ = {**environ, "FLUENT_BRIDGE_CONFIG": path}
    settings = Settings.load(argv, environ)
    assert settings.listen.port == port
    assert settings.origins()["listen.port"] == origin.format(file=path)


def test_the_flag_names_the_file_rather_than_the_environment(file, tmp_path):
    environ = {"FLUENT_BRIDGE_CONFIG": str(tmp_path / "missing.yaml")}
    assert Settings.load(["--config", file(FILE)], environ).listen.port == 3


def test_every_setting_has_flag_and_variable(tmp_path):
    pem = tmp_path / "x.pem"
    pem.touch()
    # The whole of it at once, because some settings ask for others.
    texts = {
        "downstream.tls": "true",
        "downstream.tls_verify": "false",
        "filters.payload": "json",
        "filters.parameters": '{"enrich": {"table": "x"}}',
        "listen.users": "{alice: secret}",
        "log.level": "debug",
        "log.format": "json",
        "rpc.port": "24230",
        "workers.memory_limit": "1GiB",
    }
    for name, setting in catalogue(Settings).items():
        if name.endswith("_file"):
            texts[name] = str(pem)
        elif name not in texts:
            texts[name] = (
                setting.text(setting.default) if setting.unit == "bytes" else str(setting.default)
            )
            texts[name] = "x" if setting.default is None else texts[name]
    names = catalogue(Settings)
    flags = [part for name, text in texts.items() for part in (names[name].flag, text)]
    by_flag = Settings.load(flags, {})
    by_variable = Settings.load([], {names[name].variable: text for name, text in texts.items()})
    assert by_flag.model_dump() == by_variable.model_dump()
    assert by_flag.origins() == {name: f"flag {names[name].flag}" for name in names}
    assert by_variable.origins() == {name: f"environment {names[name].variable}" for name in names}


def test_mappings_merge_key_by_key(file):
    path = file(
        "listen:\n  shared_key: k\n  users:\n    alice: old\n    bob: b\n"
        "filters:\n  parameters:\n    enrich: {table: t, size: 3}\n"
    )
    settings = Settings.load(
        ["--config", path, "--filters.parameters", '{"enrich": {"size": 4}}'],
        {
            "FLUENT_BRIDGE_LISTEN__USERS__alice": "123",
            "FLUENT_BRIDGE_LISTEN__USERS__carol__x": "c",
            "FLUENT_BRIDGE_FILTERS__PARAMETERS__enrich__rate": "0.5",
            "FLUENT_BRIDGE_FILTERS__PARAMETERS__other": "{a: [1, 2]}",
        },
    )
    users = {name: secret.get_secret_value() for name, secret in settings.listen.users.items()}
    assert users == {"alice": "123", "bob": "b", "carol__x": "c"}
    assert settings.filters.parameters == {
        "enrich": {"table": "t", "size": 4, "rate": 0.5},
        "other": {"a": [1, 2]},
    }
    assert settings.origins()["listen.users"] == (
        f"environment FLUENT_BRIDGE_LISTEN__USERS__alice, file {path}:3,"
        " environment FLUENT_BRIDGE_LISTEN__USERS__carol__x"
    )


@pytest.mark.parametrize(
    ("text", "size"),
    [("1048576", 1 << 20), ("1MiB", 1 << 20), ("64M", 64_000_000), ("1.5 KiB", 1536)],
)
def test_sizes(text, size):
    assert Settings.load(["--listen.max_message_bytes", text], {}).listen.max_message_bytes == size


MISTAKES_IN_FLAGS = [
    (["--listen.prot", "1"], "flag --listen.prot: there is no such setting; did you mean --listen.port?"),
    (["--port", "1"], "did you mean --listen.port?"),
    (["--listen.port"], "flag --listen.port has no value"),
    (["--listen.port=1", "--listen.port=2"], "flag --listen.port is given twice"),
    (["filters"], "'filters' is not a flag"),
    (["--listen.port", "70000"], "listen.port: '70000' from flag --listen.port cannot be used: it must be a whole number from 0 to 65535"),
    (["--downstream.port", "0"], "a whole number from 1 to 65535"),
    (["--downstream.ack_timeout", "0"], "a number of seconds over 0"),
    (["--downstream.ack_timeout", "1m"], "a number of seconds over 0"),
    (["--downstream.ack_timeout", "nan"], "a number of seconds over 0"),
    (["--delivery.bytes_in_flight", "much"], "a size in bytes, as in 67108864 or 64MiB, and not 0"),
    (["--filters.payload", "xml"], "filters.payload: 'xml' from flag --filters.payload cannot be used: it must be raw or json"),
    (["--downstream.tls", "perhaps"], "it must be true or false"),
    (["--listen.tls_cert_file", "/no/such"], "the path of a file that exists"),
    (["--listen.host", ""], "listen.host: '' from flag --listen.host cannot be used: it must be a text that is not empty"),
    (["--listen.users", "{a"], "flag --listen.users: is neither YAML nor JSON"),
    (["--listen.users", "alice"], "a mapping of texts"),
    (["--filters.parameters", "{enrich: 5}"], "a mapping of mappings"),
    (["--listen.users", "{alice: pw}"], "listen.users needs listen.shared_key"),
    (["--downstream.username", "u"], "downstream.username is set, but downstream.password is not"),
    (["--downstream.password", "p"], "downstream.password is set, but downstream.username is not"),
    (["--downstream.username", "u", "--downstream.password", "p"], "downstream.username needs downstream.shared_key"),
    (["--listen.tls_cert_file", __file__], "listen.tls_cert_file is set, but listen.tls_key_file is not"),
    (["--listen.tls_client_ca_file", __file__], "listen.tls_client_ca_file needs listen.tls_cert_file"),
    (["--downstream.tls_ca_file", __file__], "downstream.tls_ca_file is set, but downstream.tls is not"),
    (["--downstream.retry_min", "20"], "downstream.retry_min (20 s) is over downstream.retry_max (10 s)"),
    (["--listen.max_message_bytes", "1GiB"], "listen.max_message_bytes (1.0GiB) is over delivery.bytes_in_flight (256.0MiB): the largest message would never find room (listen.max_message_bytes: flag --listen.max_message_bytes; delivery.bytes_in_flight: default)"),
    (["--workers.deadline", "200"], "workers.deadline (200 s) is over delivery.patience (180 s)"),
    (["--delivery.patience", "50"], "downstream.ack_timeout (60 s) is over delivery.patience (50 s)"),
    (["--downstream.port", "24224"], "results would come back in for ever"),
    (["--admin.port", "24224"], "admin.port and listen.port are both 24224"),
    (["--admin.port", "24224", "--listen.enabled", "false"], "listen.enabled is false, and neither rpc.socket nor rpc.port is set: no event would ever come in"),
    (["--rpc.port", "24224"], "listen.port and rpc.port are both 24224"),
    (["--rpc.port", "24280", "--listen.enabled", "false"], "admin.port and rpc.port are both 24280"),
    (["--rpc.port", "1", "--rpc.host", "0.0.0.0"], "rpc.host (0.0.0.0) is reached from other machines, and without TLS whoever reaches it reads and writes events in the clear: set rpc.tls_cert_file and rpc.tls_key_file, or use rpc.socket or 127.0.0.1"),
    (["--rpc.port", "1", "--rpc.host", "sidecar.example"], "reached from other machines"),
    (["--rpc.port", "1", "--rpc.tls_key_file", __file__], "rpc.tls_key_file is set, but rpc.tls_cert_file is not"),
    (["--rpc.port", "1", "--rpc.tls_client_ca_file", __file__], "rpc.tls_client_ca_file needs rpc.tls_cert_file"),
    (["--rpc.tls_cert_file", __file__, "--rpc.tls_key_file", __file__], "rpc.tls_cert_file is for rpc.port, which is not set"),
    (["--rpc.socket", "/" + "x" * 107], "is longer than the 107 bytes that a Unix socket's path may have"),
    (["--rpc.socket", "/x", "--rpc.max_message_bytes", "1GiB"], "rpc.max_message_bytes (1.0GiB) is over delivery.bytes_in_flight"),
    (["--rpc.max_calls", "0"], "a whole number from 1 to 65536"),
    (["--config", "/no/such.yaml"], "file /no/such.yaml: cannot be read: No such file or directory"),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "message"), MISTAKES_IN_FLAGS)
def test_mistakes_in_flags(argv, message):
    with pytest.raises(SettingsError) as caught:
        Settings.load(argv, {})
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"FLUENT_BRIDGE_LISTEN_PORT": "1"}, "environment FLUENT_BRIDGE_LISTEN_PORT: there is no such setting; did you mean FLUENT_BRIDGE_LISTEN__PORT?"),
        ({"FLUENT_BRIDGE_LISTEN__PORT__X": "1"}, "did you mean FLUENT_BRIDGE_LISTEN__PORT?"),
        ({"FLUENT_BRIDGE_PATIENCE": "1"}, "did you mean FLUENT_BRIDGE_DELIVERY__PATIENCE?"),
        ({"FLUENT_BRIDGE_": "1"}, "there is no such setting"),
        ({"FLUENT_BRIDGE_LISTEN__PORT": ""}, "listen.port: '' from environment FLUENT_BRIDGE_LISTEN__PORT cannot be used"),
        ({"FLUENT_BRIDGE_LISTEN__SHARED_KEY": ""}, "listen.shared_key: the value (not shown, it is a secret) from environment"),
        ({"FLUENT_BRIDGE_LISTEN__USERS__alice": ""}, "listen.users.alice: the value (not shown, it is a secret) from environment FLUENT_BRIDGE_LISTEN__USERS__alice cannot"),
    ],
)  # fmt: skip
def test_mistakes_in_the_environment(environ, message):
    with pytest.raises(SettingsError) as caught:
        Settings.load([], environ)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("listen:\n  prot: 1\n", ":2: listen.prot: there is no such setting; did you mean listen.port?"),
        ("port: 1\n", ":1: port: there is no such setting; did you mean listen.port?"),
        ("\nlistner: {}\n", ":2: listner: there is no such setting; did you mean listen?"),
        ("downstream:\n  patience: 5\n", "did you mean delivery.patience?"),
        ("listen.port: 1\n", ":1: write listen.port as a group: listen, and port below it"),
        ("listen: 5\n", ":1: should be names with values"),
        ("- listen\n", ":1: should be names with values"),
        ("listen:\n  port: 1\n  port: 2\n", ":3: port stands on line 2 already"),
        ("listen:\n  port: x\n", "listen.port: 'x' from file"),
        ("listen:\n  port: x\n", "bridge.yaml:2 cannot be used: it must be a whole number"),
        ("listen:\n  shared_key: 12345\n", "the value (not shown, it is a secret)"),
        ("listen: [\n", "bridge.yaml:2: is not YAML: "),
        ("listen: {port: !!python/object:x 1}\n", ":1: is not YAML: "),
        ("a: 1\n---\nb: 2\n", "is not YAML: "),
        (b"listen: \xff\n", "is not UTF-8"),
        ("listen: \x01\n", "is not YAML: "),
    ],
)  # fmt: skip
def test_mistakes_in_the_file(file, text, message):
    path = file(text)
    with pytest.raises(SettingsError) as caught:
        Settings.load(["--config", path], {})
    assert message in str(caught.value)
    assert path in str(caught.value)
    assert "12345" not in str(caught.value)


@pytest.mark.parametrize(
    "argv",
    [
        ["--rpc.socket", "/x"],
        ["--rpc.port", "0"],
        ["--rpc.port", "1", "--rpc.host", "::1"],
        ["--rpc.port", "1", "--rpc.host", "localhost"],
        ["--rpc.port", "1", "--rpc.host", "0.0.0.0", "--rpc.tls_cert_file", __file__, "--rpc.tls_key_file", __file__],
        # What is wrong with the Forward road is nobody's affair when there is none.
        ["--rpc.socket", "/x", "--listen.enabled", "false", "--downstream.port", "24224", "--workers.deadline", "300", "--admin.port", "24224"],
        ["--rpc.port", "24224", "--listen.enabled", "false"],
    ],
)  # fmt: skip
def test_ways_in(argv):
    assert Settings.load(argv, {}).rpc.enabled


def test_a_long_file_is_read_to_its_end(file):
    path = file("listen:\n" + "  # a comment\n" * 2000 + "  port: 3\n")
    assert Settings.load(["--config", path], {}).listen.port == 3


def test_all_mistakes_are_told_at_once(file):
    path = file("listen:\n  prot: 1\n  port: -1\n")
    with pytest.raises(SettingsError) as caught:
        Settings.load(["--config", path, "--log.level", "loud"], {"FLUENT_BRIDGE_X": ""})
    lines = str(caught.value).splitlines()
    assert [
        any(word in line for line in lines) for word in ("prot:", "-1", "'loud'", "BRIDGE_X")
    ] == [True] * 4
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FLUENT_BRIDGE_SERVICE_HOST", "10.0.0.1"),
        ("FLUENT_BRIDGE_SERVICE_PORT", "24224"),
        ("FLUENT_BRIDGE_SERVICE_PORT_FORWARD", "24224"),
        ("FLUENT_BRIDGE_PORT", "tcp://10.0.0.1:24224"),
        ("FLUENT_BRIDGE_PORT_24224_TCP", "tcp://10.0.0.1:24224"),
        ("FLUENT_BRIDGE_PORT_24224_TCP_ADDR", "10.0.0.1"),
        ("FLUENT_BRIDGE_ADMIN_PORT", "tcp://10.0.0.1:24280"),
        ("FLUENT_BRIDGE_ADMIN_SERVICE_HOST", "10.0.0.1"),
    ],
)
def test_variables_that_kubernetes_sets_for_a_service_are_no_mistakes(variable, value):
    assert Settings.load([], {variable: value}) == Settings()


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("listen.prot", "listen.port"),
        ("listen.ack_timeout", "downstream.ack_timeout"),
        ("tls_verify", "downstream.tls_verify"),
        ("zzz", ""),
    ],
)
def test_nearest(name, near):
    assert nearest(name, catalogue(Settings)) == near


def test_settings_cannot_be_changed_and_can_be_pickled():
    settings = Settings.load(["--listen.shared_key", "s3cret"], {})
    with pytest.raises(ValueError, match="frozen"):
        settings.listen.port = 1
    assert pickle.loads(pickle.dumps(settings)).origins() == settings.origins()
    assert "s3cret" not in f"{settings!r}{settings.show()}"


def test_secrets_in_parameters_are_not_shown():
    parameters = '{"enrich": {"api_key": "s3cret", "table": "t", "db": {"password": "s3cret"}}}'
    settings = Settings.load(["--filters.parameters", parameters], {})
    assert settings.filters.parameters["enrich"]["db"] == {"password": "s3cret"}
    (shown,) = [each for each in settings.show() if each.setting.name == "filters.parameters"]
    assert shown.masked
    assert "s3cret" not in str(shown.value)
    assert shown.value["enrich"]["table"] == "t"


def test_every_setting_says_what_it_means():
    for setting in catalogue(Settings).values():
        assert setting.meaning, setting.name
        assert not setting.meaning.endswith("."), setting.name
        assert setting.allowed, setting.name


def test_defaults_are_what_the_parts_expect():
    settings = Settings()
    assert settings.filters.path == Path("filters")
    assert settings.listen.max_message_bytes == 64 << 20
    assert settings.delivery.patience < 190, "Fluentd's ack_response_timeout"
    assert settings.shutdown.grace < 30, "Kubernetes' terminationGracePeriodSeconds"
    # An event that never returns costs its worker's deadline three times before it is a dead
    # letter. Where the plugin's patience is over first, its batch comes again for ever.
    parameters = (GEM / "sidecar_parameters.rb").read_text()
    timeout = re.search(r":timeout, :time, default: (\d+)", parameters)
    assert 3 * settings.workers.deadline < int(timeout[1])
    assert 3 * settings.workers.deadline < settings.delivery.patience
