"""The log is JSON for machines, lines for people, and takes everything in."""

import json
import os
import pty
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


def log(code, level="info", form="json", stderr=subprocess.PIPE):
    """Return what a process that runs this code writes to stderr."""
    program = f"""
import logging, warnings
from pathlib import Path
from bridge import logs
_log = logs.get_logger("bridge.test")
logs.configure({level!r}, {form!r})
{textwrap.dedent(code)}
"""
    done = subprocess.run([sys.executable, "-c", program], stderr=stderr, check=True, timeout=60)
    return done.stderr.decode() if stderr == subprocess.PIPE else ""


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_a_line():
    (line,) = lines(log('_log.warning("connection closed", peer="1.2.3.4:5", bytes=3)'))
    assert list(line)[:4] == ["timestamp", "level", "event", "logger"]
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "warning",
        "event": "connection closed",
        "logger": "bridge.test",
        "peer": "1.2.3.4:5",
        "bytes": 3,
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("'\\udc80\"\\n'", '\\udc80"\n'),
        ("Path('/x')", "PosixPath('/x')"),
        ("[None, True, 1.5]", [None, True, 1.5]),
        ("object", "<class 'object'>"),
        ("{1: 2}", {"1": 2}),
    ],
)
def test_any_value_can_be_written(value, shown):
    (line,) = lines(log(f'_log.info("seen", value={value})'))
    assert line["value"] == shown


def test_the_standard_library_and_warnings_arrive_as_well():
    first, odd, warning, broken = lines(
        log("""
        logging.getLogger("aiohttp.server").error("failed for %s", "x")
        logging.getLogger("kafka").log(35, "between two levels")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        try:
            1 / 0
        except ZeroDivisionError:
            logging.getLogger("asyncio").exception("broken")
        logging.getLogger("asyncio").debug("too low")
        """)
    )
    assert (first["logger"], first["level"], first["event"]) == (
        "aiohttp.server",
        "error",
        "failed for x",
    )
    assert odd["level"] == "warning"
    assert warning["logger"] == "py.warnings"
    assert "ZeroDivisionError" in broken["exception"]


@pytest.mark.parametrize(
    ("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)]
)
def test_levels(level, count):
    text = log("for each in (_log.debug, _log.info, _log.warning, _log.error): each('said')", level)
    assert len(lines(text)) == count


def test_an_exception_shows_no_local_variables():
    code = """
    password = "s3" + "cret"
    try:
        raise ValueError("wrong")
    except ValueError:
        _log.exception("failed")
    """
    for form in ("json", "console"):
        text = log(code, form=form)
        assert "ValueError: wrong" in text
        assert "s3cret" not in text


@pytest.mark.parametrize("form", ["auto", "console", "json"])
def test_colours_only_on_a_terminal(form):
    code = "_log.info('said', peer='x')"
    piped = log(code, form=form)
    assert "\x1b[" not in piped
    assert piped.startswith("{") == (form != "console")
    ours, theirs = pty.openpty()
    try:
        log(code, form=form, stderr=theirs)
        shown = os.read(ours, 4096).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert ("\x1b[" in shown) == (form != "json")


def test_a_log_that_cannot_be_written_stops_nothing():
    with Path("/dev/full").open("wb", buffering=0) as full:
        log("_log.info('said')\n_log.info('and again')", stderr=full)


def test_a_process_without_stderr_goes_on():
    log("import sys; sys.stderr = None; logs.configure(); _log.info('said')")


def test_whoever_takes_the_place_of_stderr_gets_the_lines():
    (line,) = lines(
        log("""
        import io, sys
        before, sys.stderr = sys.stderr, io.StringIO()
        _log.info("said", peer="\\N{SNOWMAN}")
        before.write(sys.stderr.getvalue())
        """)
    )
    assert (line["event"], line["peer"]) == ("said", "\N{SNOWMAN}")
