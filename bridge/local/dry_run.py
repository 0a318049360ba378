"""A configuration as Fluentd sees it, without running it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from bridge.errors import LoadError
from bridge.local.fluentd import PROGRAM, Fluentd, plugin

_TIMEOUT = 120.0
_TAIL = 10
# Fluentd's log.rb; the worker's number stands there where there are several.
_ENTRY = re.compile(r"[-\d]+ [:\d]+ \S+ \[(?P<level>\w+)\]: (?:#\d+ )?(?P<text>.*)")
_CONFIG_ERROR = re.compile(r'config error file=.*? error_class=\S+ error=(?P<error>".*")')
_RAISED = re.compile(r"\S+:\d+:in .+?': (?P<error>.+?)(?: \([\w:]+\))?")  # past Fluentd's log
_PLACE = re.compile(r" at (?P<file>\S+) line (?P<line>\d+),\d+")
_NO_PLUGIN = re.compile(r"Unknown \w+ plugin 'bridge(_kafka)?'")


class DryRun(NamedTuple):
    """What Fluentd says about a configuration.

    Attributes:
        mistakes: why it does not take it.
        warnings: what it takes, but finds odd.
        bundled: whether it has the plugins of this package only because they were lent to it.
    """

    mistakes: list[LoadError]
    warnings: list[str]
    bundled: bool


def dry_run(configuration: Path) -> DryRun:
    """Have Fluentd read a configuration and make its plugins, without running them.

    Args:
        configuration: its file.
    """
    try:
        configuration.read_bytes()
    except OSError as error:
        why = f"cannot be read: {error.strerror}; give Fluentd's configuration file"
        return DryRun([LoadError(why, file=configuration)], [], bundled=False)
    if missing := Fluentd.missing():
        why = f"cannot be checked: {missing}; install Fluentd, or leave out --fluentd-conf"
        return DryRun([LoadError(why, file=configuration)], [], bundled=False)
    done = _run(configuration, [])
    bundled = _NO_PLUGIN.search(done.stdout) is not None
    if bundled:
        done = _run(configuration, plugin())
    entries = _entries(done.stdout)
    mistakes = []
    if done.returncode:
        mistakes.append(_refusal(configuration, entries, done.stdout + done.stderr))
    warnings = [" ".join(text.split()) for level, text in entries if level == "warn"]
    return DryRun(mistakes, warnings, bundled)


def _run(configuration: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command = [PROGRAM, "--dry-run", "--config", str(configuration), *arguments]
    try:
        return subprocess.run(  # noqa: S603 - Fluentd, on the file that the user named
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        late = f"the dry run took longer than {_TIMEOUT:g} s"
        return subprocess.CompletedProcess(command, 1, "", late)


def _entries(log: str) -> list[tuple[str, str]]:
    """Return level and text of each entry of Fluentd's log."""
    entries: list[tuple[str, str]] = []
    for line in log.splitlines():
        if match := _ENTRY.fullmatch(line):
            entries.append((match["level"], match["text"]))
        elif entries:
            level, text = entries.pop()
            entries.append((level, f"{text}\n{line}"))
    return entries


def _refusal(configuration: Path, entries: list[tuple[str, str]], output: str) -> LoadError:
    """Return what Fluentd says is wrong, in its own words."""
    said: list[str] = []
    where: list[str] = []
    for level, text in entries:
        if level not in {"error", "fatal"}:
            continue
        if match := _CONFIG_ERROR.match(text):
            said.append(_unquoted(match["error"]))
        elif text.startswith("config error in:"):
            where.append(f", in {text.partition(':')[2]}")
        else:
            said.append(text)
    if not said:
        lines = [line for line in output.strip().splitlines() if not line.startswith("\tfrom ")]
        raised = next((match for line in lines if (match := _RAISED.fullmatch(line))), None)
        said += [raised["error"]] if raised else lines[-_TAIL:]
    text = " ".join("".join(["; ".join(said), *where]).split())
    file, line = configuration, 0
    if place := _PLACE.search(text):
        # The file's name alone stands there; another one was included.
        file = configuration.with_name(place["file"])
        line = int(place["line"])
        text = text.replace(place[0], "")
    return LoadError(f"Fluentd does not take it: {text}; correct it there", file=file, line=line)


def _unquoted(text: str) -> str:
    """Return what Ruby's inspect has put into quotes."""
    try:
        return str(json.loads(text))
    except ValueError:
        return text[1:-1]
