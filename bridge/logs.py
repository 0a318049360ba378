"""The log: one line a happening on stderr, as JSON for machines or coloured for people.

An event's name is a short sentence that never varies; what varies stands beside it under a key::

    _log = get_logger(__name__)
    _log.warning("connection closed", peer="127.0.0.1:50312", reason="eof")
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, cast

import msgspec
import structlog

_encoder = msgspec.json.Encoder(enc_hook=repr)
_FIRST = ("timestamp", "level", "event", "logger")


def configure(
    level: Literal["debug", "info", "warning", "error"] = "info",
    format: Literal["auto", "json", "console"] = "auto",  # noqa: A002 - the setting's name
) -> None:
    """Set the log up, once a process; the standard library's logging and warnings go there too.

    Args:
        level: the least severe line that is written.
        format: ``auto`` is ``console`` on a terminal, else ``json``.
    """
    terminal = sys.stderr is not None and sys.stderr.isatty()
    console = format == "console" or (format == "auto" and terminal)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *(
                [
                    # The rich formatter prints local variables, and with them secrets.
                    structlog.dev.ConsoleRenderer(
                        colors=terminal, exception_formatter=structlog.dev.plain_traceback
                    )
                ]
                if console
                else [structlog.processors.format_exc_info, _render]
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Stderr,
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Standard()], level=level.upper(), force=True)
    logging.captureWarnings(capture=True)


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """Return the logger of a module.

    Args:
        name: the module's ``__name__``; stands under ``logger`` in every line.
    """
    return cast("structlog.typing.FilteringBoundLogger", structlog.get_logger(name))


def _render(_logger: object, _method: str, event: MutableMapping[str, Any]) -> bytes:
    """Return the line as JSON, in a third of the time that the json module takes."""
    ordered = {key: event.pop(key) for key in _FIRST if key in event}
    ordered.update(event)
    try:
        return _encoder.encode(ordered)
    except (UnicodeEncodeError, TypeError, ValueError, RecursionError):
        # Tags and reasons come from peers' bytes and may hold surrogates, which are not JSON.
        return _encoder.encode(_plain(ordered))


def _plain(event: Mapping[str, Any]) -> dict[str, str]:
    texts = {key: each if isinstance(each, str) else repr(each) for key, each in event.items()}
    return {key: text.encode(errors="backslashreplace").decode() for key, text in texts.items()}


class _Stderr:
    """Writes lines to stderr, each with one write, so that lines of several processes stay whole.

    A line that cannot be written is lost: a full disk below the log must not stop delivery.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name

    def msg(self, line: str | bytes) -> None:
        data = line if isinstance(line, bytes) else line.encode(errors="backslashreplace")
        # Looked up each time: stderr may be another one by now. Past its buffer, which would keep a
        # line that cannot be written, and fail again when the process ends.
        with contextlib.suppress(OSError, ValueError):
            stream: Any = getattr(sys.stderr, "buffer", sys.stderr)
            if isinstance(stream, io.TextIOBase):
                stream.write(f"{data.decode()}\n")  # put there by who wants to read it
            elif stream is not None:  # which it is where a process begins without one
                getattr(stream, "raw", stream).write(data + b"\n")

    log = debug = info = warn = warning = error = err = fatal = exception = critical = failure = msg


class _Standard(logging.Handler):
    """Sends what the standard library's loggers say the same way."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # structlog knows the five standard levels only; libraries have others between.
            level = min(max(record.levelno // 10, 1), 5) * 10
            get_logger(record.name).log(level, record.getMessage(), exc_info=record.exc_info)
        except Exception:  # noqa: BLE001 - a log line must not end what it reports on
            self.handleError(record)
