"""``fluent-bridge replay``: dead letters back into the pipeline."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.cli._options import (
    ConfigOption,
    TlsCaFileOption,
    TlsCertFileOption,
    TlsKeyFileOption,
    TlsOption,
    UsernameOption,
)
from bridge.errors import DeliveryError, ProtocolError

if TYPE_CHECKING:
    from bridge.replay.cluster import Cluster
    from bridge.replay.run import Replay
    from bridge.replay.selection import Condition
    from bridge.replay.sources import Source
    from bridge.replay.targets import Target

_INTERRUPTED = 130  # what shells have for a program that Ctrl-C ended
_FROM = "From (one of these)"
_TO = "To (one of these)"
_WHICH = "Which letters"
_KAFKA = "Kafka"
_FORWARD = "Forward connection"  # as the options shared with feed

_EPILOG = """\
Example: fluent-bridge replay --from-topic dead-letters --to-topic ad --where error.filter=enrich

Example: fluent-bridge replay dead.jsonl --to 127.0.0.1:24224 --since 2h --dry-run
"""


class _Format(StrEnum):
    msgpack = "msgpack"
    jsonl = "jsonl"
    json = "json"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EPILOG)(replay)


def replay(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="File of dead letters, as Fluentd's outputs write them.",
            show_default=False,
        ),
    ] = None,
    *,
    from_topic: Annotated[
        str | None,
        typer.Option(
            metavar="TOPIC",
            help="Kafka topic of dead letters, msgpack or JSON.",
            rich_help_panel=_FROM,
        ),
    ] = None,
    format: Annotated[  # noqa: A002 - the flag's name
        _Format | None,
        typer.Option(
            help="What the file is, where neither its name nor its first bytes say.",
            show_default=False,
            rich_help_panel=_FROM,
        ),
    ] = None,
    to_topic: Annotated[
        str | None,
        typer.Option(
            metavar="TOPIC",
            help="Kafka topic that the events were read from; ${tag} in it stands for their tag.",
            rich_help_panel=_TO,
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Forward port, of a sidecar or a Fluentd.",
            rich_help_panel=_TO,
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="Only letters of which this holds: error.class=Reject, error.filter!=enrich,"
            " error.message~'^no url', tag='ad.**', record.country=DE. May be given again; all"
            " must hold.",
            rich_help_panel=_WHICH,
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Only events of this time or later: 2026-11-22T09:30, UTC unless it says"
            " otherwise, or 2h ago: 30m, 2h, 7d.",
            rich_help_panel=_WHICH,
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Only events of an earlier time.", rich_help_panel=_WHICH
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Stop after so many letters.", rich_help_panel=_WHICH
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Send nothing; show what would go.")
    ] = False,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="N", help="Letters a second; else as fast as they go."),
    ] = None,
    ledger: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Where it is written down what was replayed: by default FILE.replayed, or the"
            " Kafka topic TOPIC.replayed. With another name all of it may go again.",
            show_default=False,
        ),
    ] = None,
    field: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Field of the record with the message's value as it was read. Conditions on"
            " record.* look into the JSON document there too.",
            rich_help_panel=_KAFKA,
        ),
    ] = "message",
    as_json: Annotated[
        bool,
        typer.Option(
            "--as-json",
            help="The value is the whole record as JSON, for inputs that parsed it.",
            rich_help_panel=_KAFKA,
        ),
    ] = False,
    key_field: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Field of the record with the message's key, as the input's key_field.",
            rich_help_panel=_KAFKA,
        ),
    ] = None,
    keep_time: Annotated[
        bool,
        typer.Option(
            "--keep-time",
            help="Messages get the events' times, for inputs with time_source kafka. Kafka may"
            " delete at once what is older than the topic's retention.",
            rich_help_panel=_KAFKA,
        ),
    ] = False,
    brokers: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT,...",
            envvar="KAFKA_BROKERS",
            help="The cluster of all topics.",
            rich_help_panel=_KAFKA,
        ),
    ] = "localhost:9092",
    kafka_config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="More of librdkafka's options, for TLS and SASL: a line name=value each.",
            rich_help_panel=_KAFKA,
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            min=0.001,
            metavar="SECONDS",
            help="Longest wait for an acknowledgement.",
            rich_help_panel=_FORWARD,
        ),
    ] = 190.0,
    tls: TlsOption = False,
    tls_ca_file: TlsCaFileOption = None,
    tls_cert_file: TlsCertFileOption = None,
    tls_key_file: TlsKeyFileOption = None,
    username: UsernameOption = None,
    config: ConfigOption = None,
) -> None:
    """Put dead letters back into the pipeline, after the filter that refused them was mended.

    What was replayed is written down, and left out by the next run: one that was interrupted or
    killed goes on, and one with other conditions takes what is left. From topic to topic that is
    in the transaction with the messages, so that each letter goes exactly once for readers that are
    read_committed, as bridge_kafka is. To a Forward port, and from a file, it follows the
    acknowledgement: a kill in between sends a batch twice.

    A shared key is no flag, since flags show in `ps`: it is taken from the setting
    listen.shared_key, from the environment (FLUENT_BRIDGE_LISTEN__SHARED_KEY) or --config.

    Only letters are read that are there at the start. An event that fails again is a new letter.

    Ends with a line like `120 letters read, 100 replayed, 15 not selected, 5 replayed before`.
    Exit code: 0 if all that was selected went, 1 if not, 2 for wrong usage, 130 after Ctrl-C.
    """
    if (file is None) == (from_topic is None):
        raise typer.BadParameter("give either a FILE of dead letters or --from-topic")
    if (to is not None) + (to_topic is not None) not in ({0, 1} if dry_run else {1}):
        raise typer.BadParameter("give either --to-topic or --to, or --dry-run to look only")
    from bridge.cli import _target  # noqa: PLC0415 - --help must not wait for them
    from bridge.replay import cluster, run, sources, targets  # noqa: PLC0415

    selected = _selected(where or [], since, until, field)

    @functools.cache
    def kafka() -> Cluster:
        options = {} if kafka_config is None else cluster.options_of(kafka_config)
        return cluster.Cluster(brokers, options)

    def open_target() -> Target:
        if to is not None:
            settings = _target.settings_of(config, None, None)
            flags = _target.Tls(tls, tls_ca_file, tls_cert_file, tls_key_file)
            client = _target.client(to, settings, username, flags, timeout)
            return targets.ForwardTarget(client)
        if to_topic is None:
            return targets.Nowhere()
        return targets.TopicTarget(
            kafka(),
            to_topic,
            field=None if as_json else field,
            key_field=key_field,
            keep_time=keep_time,
        )

    def open_source() -> Source:
        if from_topic is not None:
            return sources.TopicSource(kafka(), from_topic, ledger, read_only=dry_run)
        assert file is not None
        return sources.FileSource(
            file,
            format.value if format else None,
            Path(ledger) if ledger else None,
            read_only=dry_run,
        )

    def open_run(source: Source, target: Target) -> Replay:
        return run.Replay(source.ledger, target, selected, limit, rate, dry_run)

    raise typer.Exit(_run(open_target, open_source, open_run))


def _selected(where: list[str], since: str | None, until: str | None, field: str) -> Condition:
    from bridge.replay.selection import moment, selection  # noqa: PLC0415

    now = dt.datetime.now(dt.UTC)
    try:
        return selection(
            where,
            None if since is None else moment(since, now),
            None if until is None else moment(until, now),
            field,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _run(
    open_target: Callable[[], Target],
    open_source: Callable[[], Source],
    open_run: Callable[[Source, Target], Replay],
) -> int:
    """Run, show what it came to, and return the exit code."""
    from bridge.cli import _letters  # noqa: PLC0415
    from bridge.replay.cluster import ReplayError  # noqa: PLC0415

    run: Replay | None = None
    try:
        # The target first: a source may create a ledger.
        with closing(open_target()) as target, open_source() as source:
            run = open_run(source, target)
            with _letters.watching(run, source.total):
                run.run(source)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except (ReplayError, DeliveryError, ProtocolError) as error:
        _letters.complain("error", str(error))
        return 1
    finally:
        if run is not None:
            _letters.show(run)
    return 0 if run.tally.right else 1
