"""``fluent-bridge bench``: how fast the user's filters are on the user's events."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.cli._options import ConfigOption, FormatOption, Payload, TagOption
from bridge.errors import SampleError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.filters import Registry
    from bridge.forward import Chunk

_RATE = re.compile(r"([0-9][0-9_,]*(?:\.[0-9]+)?)([kM]?)")
_FACTORS = {"": 1, "k": 1_000, "M": 1_000_000}

_EPILOG = """\
Example: fluent-bridge bench filters --sample clicks.jsonl --tag ad.click --target-rate 200k
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EPILOG)(bench)


def bench(
    folder: Annotated[
        str | None, typer.Argument(metavar="FOLDER", help="Folder of filter files.")
    ] = None,
    *,
    sample: Annotated[
        str, typer.Option(metavar="FILE", help="File of events, as for feed; - is standard input.")
    ],
    tag: TagOption = None,
    format: FormatOption = None,  # noqa: A002 - the flag's name
    payload: Annotated[
        Payload | None,
        typer.Option(
            help="As the setting filters.payload, which is the default. With json a record that"
            " does not have the field filters.payload_key is taken for the document itself.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.01, metavar="SECONDS", help="How long to measure.")
    ] = 3.0,
    events: Annotated[
        int, typer.Option(min=1, metavar="N", help="Events of the file to take.")
    ] = 20_000,
    chunk: Annotated[
        int, typer.Option(min=1, metavar="N", help="Events a chunk, as Fluentd will send them.")
    ] = 1_000,
    workers: Annotated[
        int,
        typer.Option(min=1, max=1024, metavar="N", help="Processes that measure at the same time."),
    ] = 1,
    target_rate: Annotated[
        str | None,
        typer.Option(metavar="RATE", help="Events a second to find workers.count for, as 200k."),
    ] = None,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the filters of a folder on events of yours, run as a worker of the sidecar runs them.

    The time of an event has these parts, which add up to all of it:

    - cut: cutting chunks into slices and joining the results.

    - decode: making records of bytes; where the first filter takes a typed view, only finding them.

    - filter NAME: calling it, making what it gets and taking what it returns. A typed view's
    decoding is its filter's.

    - encode: making bytes of what the filters made; nothing, where no filter can change events.

    - rest: bookkeeping, dead letters, and the collection of garbage between chunks.

    They are taken by the clock in one run, a few times a slice of 256 events. In turn with it runs
    a bare loop over the same chunks, which decodes every event and encodes it again: what any
    program has to do.

    Exit code: 0, or 1 if every chunk was asked for again by bridge.Retry.
    """
    from bridge import loading, profile  # noqa: PLC0415 - --help must not wait for them
    from bridge.cli import _profile  # noqa: PLC0415
    from bridge.cli._target import settings_of  # noqa: PLC0415
    from bridge.samples import documents, read  # noqa: PLC0415

    target = None if target_rate is None else _rate(target_rate)
    settings = settings_of(config, folder, payload).filters
    stream = read(sample, format.value if format else None)
    if settings.payload == "json":
        stream = documents(stream, settings.payload_key)
    chunks = profile.prepare(stream, tag, chunk, events)
    registry = loading.load(settings.path, settings.parameters)
    _check(registry, chunks, sample)
    found = profile.measure_at_once(registry, chunks, seconds, settings=settings, processes=workers)
    advice = _profile.Advice.of(found, target) if target and found.events else None
    if as_json:
        document = _profile.as_json(found, chunks, workers, advice)
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        _profile.show(found, chunks, settings, workers, advice)
    if not found.events:
        raise typer.Exit(1)


def _rate(text: str) -> float:
    match = _RATE.fullmatch(text)
    if match is None or not (rate := float(match[1].replace("_", "").replace(",", ""))):
        raise typer.BadParameter(
            f"--target-rate {text} is no number of events a second, as in 200000, 200k or 1.5M"
        )
    return rate * _FACTORS[match[2]]


def _check(registry: Registry, chunks: Sequence[Chunk], sample: str) -> None:
    if not chunks:
        raise SampleError(
            "holds no event, and so nothing to measure with: give a file of events", file=sample
        )
    tags = dict.fromkeys(chunk.tag for chunk in chunks)
    if "" in tags:
        raise typer.BadParameter(
            "the file does not say which tag its events have: say it with --tag"
        )
    if not any(one.matches(tag) for one in registry.filters for tag in tags):
        patterns = ", ".join(f"{one.name} ({one.pattern})" for one in registry.filters)
        raise typer.BadParameter(
            f"no filter applies to the tag {', '.join(tags)}: give one that your filters are for by"
            f" --tag; there are {patterns}"
        )
