"""Options that several commands have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

_FORWARD = "Forward connection"


class Format(StrEnum):
    """What a file of events is; as :data:`bridge.samples.Format`, which takes long to import."""

    msgpack = "msgpack"
    jsonl = "jsonl"
    json = "json"
    csv = "csv"


class Payload(StrEnum):
    """The setting ``filters.payload``."""

    raw = "raw"
    json = "json"


TagOption = Annotated[
    str | None,
    typer.Option(metavar="TAG", help="The events' tag; needed where the file says none."),
]
FormatOption = Annotated[
    Format | None,
    typer.Option(
        help="What the file is, where neither its name nor its first bytes say. msgpack: a chunk of"
        " a Fluentd buffer, Forward messages, or records; jsonl: a record a line; json: one"
        " document; csv: with a header row, every value is a text.",
        show_default=False,
    ),
]
ConfigOption = Annotated[
    str | None, typer.Option(metavar="FILE", help="YAML file with the sidecar's settings.")
]
TlsOption = Annotated[bool, typer.Option("--tls", help="Speak TLS.", rich_help_panel=_FORWARD)]
TlsCaFileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Authorities in PEM to trust; by default those of the system.",
        rich_help_panel=_FORWARD,
    ),
]
TlsCertFileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Certificate in PEM to show (mutual TLS).",
        rich_help_panel=_FORWARD,
    ),
]
TlsKeyFileOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The certificate's private key.", rich_help_panel=_FORWARD),
]
UsernameOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="User to log in as; the password is the one that the setting listen.users has.",
        rich_help_panel=_FORWARD,
    ),
]
