"""``fluent-bridge decode``: msgpack as lines that people read."""

from __future__ import annotations

import itertools
import sys
from typing import Annotated

import typer

from bridge.errors import SampleError

_EPILOG = """\
Example: fluent-bridge decode /var/log/fluent/buffer/buffer.b5f1c.log --limit 20

What JSON has no form for is a map of one key: {"$bin": "text"} is bytes, {"$float": "NaN"} a
number, {"$time": "2026-..."} an EventTime in a record, {"$ext": [type, base64]} any other ext,
{"$map": [[key, value]]} a map with a key that is no text or comes twice, {"$msgpack": base64} what
nests too deeply. A byte that is not UTF-8 is \\udcXX, as in Python's surrogateescape.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EPILOG)(decode)


def decode(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="The file; - is standard input.")
    ] = "-",
    *,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object a line: time, tag, record."),
    ] = False,
    values: Annotated[
        bool,
        typer.Option(
            "--values", help="Any msgpack objects, events or not: each as a line of JSON."
        ),
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Stop after so many lines.")
    ] = None,
) -> None:
    """Show a Fluentd buffer chunk, Forward messages or any msgpack, a line an event.

    A line is the time, the tag and the record as JSON, with tabs between; - is what the file does
    not say. The tag of a buffer chunk is in the .meta file beside it. Chunks compressed by gzip or
    zstd are taken as they are. Of a damaged file the events before the damage are shown, then where
    it is, and the exit code is 1.
    """
    from bridge.cli import _lines  # noqa: PLC0415 - --help must not wait for it
    from bridge.samples import Source  # noqa: PLC0415

    if as_json and values:
        raise typer.BadParameter("--json and --values exclude each other: values have no time")
    out = sys.stdout.buffer
    live = sys.stdout.isatty()
    with Source(file, "msgpack") as source:
        lines = _lines.values(source) if values else _lines.events(source, as_objects=as_json)
        try:
            for line in itertools.islice(lines, limit):
                out.write(line.encode() + b"\n")
                if live:
                    out.flush()
        except SampleError as error:
            out.flush()
            typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
            typer.echo(error, err=True)
            raise typer.Exit(1) from error
    out.flush()
