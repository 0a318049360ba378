"""``fluent-bridge feed``: events from a file to a sidecar, or through a folder of filters."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from bridge.cli._options import (
    ConfigOption,
    FormatOption,
    Payload,
    TagOption,
    TlsCaFileOption,
    TlsCertFileOption,
    TlsKeyFileOption,
    TlsOption,
    UsernameOption,
)
from bridge.errors import SampleError

if TYPE_CHECKING:
    from bridge.feed import Tally, Target
    from bridge.forward import Chunk
    from bridge.pipeline import Outcome
    from bridge.samples import Sample

_MOST_SHOWN = 3  # chunks that a message names
_CHUNK = 1_000
_CHUNKS_A_SECOND = 10  # at a rate, unless told how large a chunk is
_INTERRUPTED = 130  # what shells have for a program that Ctrl-C ended
_WHERE = "Where to (one of these)"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: fluent-bridge feed clicks.jsonl --tag ad.click --filters filters")(
        feed
    )


def feed(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="File of events; - is standard input.")
    ],
    *,
    tag: TagOption = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="A Forward port, of a sidecar or a Fluentd; by default the one that the settings"
            " listen.host and listen.port say.",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    socket: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="A sidecar's gRPC socket: rpc.socket.", rich_help_panel=_WHERE
        ),
    ] = None,
    filters: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="No sidecar: a folder of filters, run in this process.",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    format: FormatOption = None,  # noqa: A002 - the flag's name
    payload: Annotated[
        Payload | None,
        typer.Option(
            help="json: send each record as JSON text in the field that filters.payload_key names,"
            " unless it has that field already. By default as the setting filters.payload says.",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="N", help="Events a second; else as fast as they go."),
    ] = None,
    chunk: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help=f"Most events a chunk: {_CHUNK} by default, a tenth of a second's with --rate.",
        ),
    ] = None,
    repeat: Annotated[
        int, typer.Option(min=1, metavar="N", help="Send the file so many times.")
    ] = 1,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Stop after so many events.")
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            min=0.001, metavar="SECONDS", help="Longest wait for a chunk's acknowledgement."
        ),
    ] = 60.0,
    tls: TlsOption = False,
    tls_ca_file: TlsCaFileOption = None,
    tls_cert_file: TlsCertFileOption = None,
    tls_key_file: TlsKeyFileOption = None,
    username: UsernameOption = None,
    config: ConfigOption = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Do not print the results, the summary only.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Results and summary as JSON lines."),
    ] = False,
) -> None:
    """Send events from a file to a running sidecar, or through a folder of filters.

    Over Forward every chunk is acknowledged when its results are delivered. Over gRPC, and with
    --filters, the results come back here and are printed; the summary then goes to stderr.

    A shared key is no flag, since flags show in `ps`: it is taken from the setting
    listen.shared_key, from the environment (FLUENT_BRIDGE_LISTEN__SHARED_KEY) or --config.

    Exit code: 0 if all chunks were acknowledged, 1 if not, 130 after Ctrl-C.
    """
    from bridge import samples  # noqa: PLC0415 - --help must not wait for them
    from bridge.cli import _target  # noqa: PLC0415
    from bridge.cli._bar import Bar  # noqa: PLC0415
    from bridge.cli._results import Results  # noqa: PLC0415
    from bridge.feed import Tally, send  # noqa: PLC0415

    if repeat > 1 and file == "-":
        raise typer.BadParameter("standard input comes once: --repeat needs a file")
    settings = _target.settings_of(config, filters, payload)
    flags = _target.Tls(tls, tls_ca_file, tls_cert_file, tls_key_file)
    target = _target.target_of(
        to, socket, filters, settings=settings, username=username, tls=flags, timeout=timeout
    )
    results = Results(as_json=as_json) if target.results and not quiet else None
    tally = Tally()
    beside = results is not None and sys.stdout.isatty()
    with closing(target), Bar(target.name, tally, shown=not beside) as bar:

        def events() -> Generator[Sample, None, None]:
            for _ in range(repeat):
                with samples.Source(file, format.value if format else None) as source:
                    bar.follow(source, repeat)
                    yield from samples.read(source)

        def each(outcome: Outcome | None) -> None:
            bar.update()
            if outcome and results:
                results.show(outcome)

        def run() -> None:
            target.open()
            with closing(events()) as read:  # the file, too, where sending ends early
                stream: Iterable[Sample] = itertools.islice(read, limit)
                if settings.filters.payload == "json":
                    stream = samples.documents(stream, settings.filters.payload_key)
                send(
                    _tagged(samples.chunks(stream, _size(chunk, rate), tag=tag)),
                    target,
                    tally,
                    rate=rate,
                    each=each,
                )

        end = _end_of(run)
    if tally.chunks or not isinstance(end, SampleError):
        _summary(tally, target, as_json=as_json)
    if end is not None:
        _complain(end, tally)


def _size(chunk: int | None, rate: float | None) -> int:
    if chunk is not None or rate is None:
        return chunk or _CHUNK
    return max(1, min(_CHUNK, int(rate / _CHUNKS_A_SECOND)))


def _end_of(run: Callable[[], None]) -> BaseException | None:
    """Return what ended the sending early, None where it went to its end."""
    from bridge.errors import DeliveryError, ProtocolError, SampleError  # noqa: PLC0415

    try:
        run()
    except (DeliveryError, ProtocolError, SampleError, KeyboardInterrupt) as error:
        return error
    except BrokenPipeError as error:
        # Whoever read the results has seen enough: what is still to be written goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None


def _tagged(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    for chunk in chunks:
        if not chunk.tag:
            raise typer.BadParameter(
                "the file does not say which tag its events have: say it with --tag"
            )
        yield chunk


def _summary(tally: Tally, target: Target, *, as_json: bool) -> None:
    counts: dict[str, int] = {
        "events": tally.events,
        "chunks": tally.chunks,
        "acknowledged": tally.acknowledged,
        "not_acknowledged": len(tally.pending),
        "bytes": tally.bytes,
    }
    if target.verb == "sent":
        line = (
            f"{tally.events} events sent in {tally.chunks} chunks,"
            f" {tally.acknowledged} acknowledged, {len(tally.pending)} not"
        )
    else:
        line = f"{tally.events} events run in {tally.acknowledged} chunks"
    if target.results:
        counts |= {"out": tally.out, "dropped": tally.dropped, "dead_letters": tally.errors}
        line += f"; {tally.out} out, {tally.dropped} dropped, {tally.errors} dead letters"
    # Where the results are on stdout, they are alone there.
    typer.echo(json.dumps(counts) if as_json else line, err=target.results)


def _complain(end: BaseException, tally: Tally) -> NoReturn:
    """Say what ended the sending early, and which chunks may have to be sent again."""
    if isinstance(end, SampleError):
        raise end
    if isinstance(end, BrokenPipeError):
        raise typer.Exit(1)
    pending = ", ".join(map(str, tally.pending[:_MOST_SHOWN]))
    if len(tally.pending) > _MOST_SHOWN:
        pending += f" and {len(tally.pending) - _MOST_SHOWN} more"
    reason = "interrupted" if isinstance(end, KeyboardInterrupt) else str(end)
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(f"{reason}; not acknowledged: {pending}" if pending else reason, err=True)
    raise typer.Exit(_INTERRUPTED if isinstance(end, KeyboardInterrupt) else 1)
