"""What the commands print, and how they end."""

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml

import bridge
from bridge.cli import main
from bridge.errors import LoadError, SettingsError
from bridge.settings import Settings, catalogue


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in os.environ:
        if name.startswith("FLUENT_BRIDGE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def sidecar(monkeypatch):
    """Put something in the place of the sidecar that ends at once, as told."""

    def end(with_):
        started = []

        def run(settings):
            started.append(settings)
            if isinstance(with_, BaseException):
                raise with_
            return with_

        monkeypatch.setattr(bridge, "app", SimpleNamespace(run=run), raising=False)
        return started

    return end


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fluent-bridge {bridge.__version__}\n"


def test_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "bridge", "--version"], capture_output=True, check=True, timeout=60
    )
    assert done.stdout.startswith(b"fluent-bridge ")


def test_every_command_has_help_and_an_example(capsys):
    assert main(["--help"]) == 0
    commands = re.findall(r"^  (\w+)  ", capsys.readouterr().out, re.MULTILINE)
    assert {"run", "settings"} <= set(commands)
    for command in commands:
        assert main([command, "--help"]) == 0
        assert "fluent-bridge " + command in capsys.readouterr().out.partition("Example")[2]


def test_the_help_of_run_lists_every_setting(capsys):
    assert main(["run", "--help"]) == 0
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    for setting in catalogue(Settings).values():
        assert f"{setting.flag} VALUE {setting.meaning}" in text
    assert "--config FILE" in text
    assert "(default: 64MiB)" in text


@pytest.mark.parametrize("code", [0, 1, 2])
def test_run_takes_settings_and_ends_with_the_sidecars_code(sidecar, code):
    started = sidecar(code)
    assert main(["run", "--listen.port", "0", "my-filters", "--downstream.tls=true"]) == code
    (settings,) = started
    assert str(settings.filters.path) == "my-filters"
    assert settings.listen.port == 0
    assert settings.downstream.tls


@pytest.mark.parametrize(
    ("argv", "messages"),
    [
        (["run", "--listen.port", "x"], ["listen.port: 'x' from flag --listen.port"]),
        (["run", "--listen.prot", "1"], ["--listen.prot", "--listen.port"]),
        (["run", "one", "two"], ["two"]),
        (["run", "one", "--filters.path", "two"], ["the folder is given twice"]),
        (["settings", "--json", "--yaml"], ["--json and --yaml exclude each other"]),
        (["settings", "--config", "/no/such"], ["file /no/such: cannot be read"]),
        (["jump"], ["jump"]),
        (["run", "--log.level", "[red]"], ["log.level: '[red]' from flag"]),
    ],
)
def test_mistakes_are_plain_messages(capsys, sidecar, argv, messages):
    started = sidecar(0)
    assert main(argv) == 2
    shown = capsys.readouterr()
    assert not started
    assert shown.out == ""
    for message in messages:
        assert message in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (SettingsError("one\ntwo"), ["error: one", "error: two"]),
        (LoadError("no [x]", file="a.py", line=3), ["error: a.py:3: no [x]"]),
        (
            ExceptionGroup(
                "", [LoadError("x", file="a.py"), ExceptionGroup("", [SettingsError("y")])]
            ),
            ["error: a.py: x", "error: y"],
        ),
    ],
)
def test_mistakes_found_later_are_plain_messages_too(capsys, sidecar, error, shown):
    sidecar(error)
    assert main(["run"]) == 2
    assert capsys.readouterr().err.splitlines() == shown


@pytest.mark.parametrize("error", [KeyError("x"), ExceptionGroup("", [SettingsError("x"), KeyError("y")])])  # fmt: skip
def test_what_is_no_mistake_of_the_user_is_not_hidden(sidecar, error):
    sidecar(error)
    with pytest.raises(type(error)):
        main(["run"])


def shown(capsys, *argv):
    assert main(["settings", *argv]) == 0
    return capsys.readouterr().out


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "bridge.yaml"
    path.write_text(
        "listen:\n  shared_key: s3cret\n  users: {alice: s3cret}\ndelivery:\n  patience: 90\n"
    )
    return str(path)


def test_settings_as_text(capsys, file, monkeypatch):
    monkeypatch.setenv("FLUENT_BRIDGE_LISTEN__HOST", "0.0.0.0")
    text = shown(capsys, "--config", file, "--listen.port", "1", "folder")
    assert "\x1b" not in text
    assert "s3cret" not in text
    head, *lines = text.splitlines()
    columns = [head.index(name) for name in ("SETTING", "VALUE", "FROM", "DEFAULT", "MEANING")]
    rows = {}
    for line in lines:
        cells = [
            line[start:end].strip()
            for start, end in zip(columns, [*columns[1:], None], strict=True)
        ]
        rows[cells[0]] = cells[1:]
    assert list(rows) == list(catalogue(Settings))
    assert rows["filters.path"][:2] == ["folder", "flag --filters.path"]
    assert rows["listen.port"][:3] == ["1", "flag --listen.port", "24224"]
    assert rows["listen.host"][:2] == ["0.0.0.0", "environment FLUENT_BRIDGE_LISTEN__HOST"]
    assert rows["listen.shared_key"][:3] == ["**********", f"file {file}:2", "-"]
    assert rows["delivery.patience"][:3] == ["90 s", f"file {file}:5", "180 s"]
    assert rows["delivery.bytes_in_flight"][:2] == ["256MiB", "default"]
    assert all(meaning for *_, meaning in rows.values())


def test_settings_as_json(capsys, file):
    text = shown(capsys, "--config", file, "--json")
    assert "s3cret" not in text
    settings = {each["name"]: each for each in json.loads(text)}
    assert list(settings) == list(catalogue(Settings))
    assert settings["delivery.patience"] == {
        "name": "delivery.patience",
        "value": 90.0,
        "origin": f"file {file}:5",
        "default": 180.0,
        "unit": "seconds",
        "meaning": catalogue(Settings)["delivery.patience"].meaning,
        "allowed": "a number of seconds over 0",
        "flag": "--delivery.patience",
        "variable": "FLUENT_BRIDGE_DELIVERY__PATIENCE",
    }


def test_settings_as_yaml_are_a_file_that_gives_them_back(capsys, tmp_path):
    flags = ["--listen.port", "1", "--filters.parameters", "{a: {b: [1, 'x: y']}}"]
    written = tmp_path / "written.yaml"
    written.write_text(shown(capsys, *flags, "--yaml"))
    loaded = Settings.load(["--config", str(written)], {})
    assert loaded.model_dump() == Settings.load(flags, {}).model_dump()


def test_settings_as_yaml_hold_no_masks(capsys, file):
    text = shown(capsys, "--config", file, "--yaml")
    assert "s3cret" not in text
    listen = yaml.safe_load(text)["listen"]
    assert "shared_key" not in listen
    assert "users" not in listen
    assert "  # shared_key: '**********'" in text.splitlines()


def test_settings_on_a_terminal_are_a_table(on_terminal):
    text = on_terminal("settings", "--listen.port", "5")
    assert "┃" in text
    assert "flag --listen.port" in text
