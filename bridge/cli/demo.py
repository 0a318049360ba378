"""``fluent-bridge demo``: see it work."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from bridge import logs
from bridge.demo import run as demo_run
from bridge.demo.run import Outcome, Parts
from bridge.local.processes import ProgramError
from bridge.local.topics import TopicError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: fluent-bridge demo --events 20000")(demo)


def demo(
    events: Annotated[
        int, typer.Option(min=1, max=10_000_000, help="How many events to send.")
    ] = 50_000,
) -> None:
    """Send events from Kafka through Fluentd, a sidecar and back, and account for each.

    Uses Fluentd and Kafka if `fluentd`, `kafka-server-start.sh` and `kafka-storage.sh` are on the
    PATH; otherwise Kafka is librdkafka's mock cluster and this project's Forward client and server
    play Fluentd's two ends. The sidecar is always the real one.
    """
    console = Console(highlight=False)
    logs.configure("error", "auto")
    parts = Parts.look()
    _introduce(console, parts)
    if not parts.real and events > demo_run.MOST_EVENTS_ON_MOCK:
        console.print(
            f"The mock cluster holds {demo_run.MOST_EVENTS_ON_MOCK} events: sending those."
        )
        events = demo_run.MOST_EVENTS_ON_MOCK
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as bar:
        task = bar.add_task("", total=None)
        said: list[str] = []

        def progress(what: str, done: int, total: int) -> None:
            if not console.is_terminal and what not in said:
                console.print(f"... {what}")
                said.append(what)
            bar.update(task, description=what, completed=done, total=total or None)

        try:
            outcome = demo_run.run(events, parts, progress)
        except (ProgramError, TopicError) as error:
            bar.stop()
            typer.echo(f"error: {error}", err=True)
            if parts.real:
                typer.echo("Without these programs on the PATH there are stand-ins.", err=True)
            raise typer.Exit(1) from error
    _show(console, outcome)
    if not outcome.complete:
        sys.exit(1)


def _introduce(console: Console, parts: Parts) -> None:
    stand_ins = {
        "Kafka": "stand-in: librdkafka's mock cluster, in a process of its own",
        "Fluentd": "stand-in: this project's Forward client and server",
    }
    real = {
        "Kafka": "real: kafka-server-start.sh from the PATH, one broker",
        "Fluentd": "real: fluentd from the PATH, with fluent-conf/forward.conf",
    }
    table = Table.grid(padding=(0, 2))
    for name, text in (real if parts.real else stand_ins).items():
        table.add_row(Text(name, "bold"), Text(text))
    table.add_row(Text("sidecar", "bold"), Text("real: fluent-bridge run, a worker a core"))
    console.print(table)
    for reason in parts.missing:
        console.print(f"({reason})", style="dim")
    console.print()


def _show(console: Console, outcome: Outcome) -> None:
    for before, after in outcome.samples:
        console.print(Text("before  ", "dim") + Text(_line(before)), soft_wrap=True)
        console.print(Text("after   ", "green") + Text(_line(after)), soft_wrap=True)
        console.print()
    for letter in outcome.letters:
        error = letter["error"]
        reason = f"{error['filter']}: {error['class']}: {error['message']}"
        console.print(Text("dead    ", "red") + Text(_line(letter["record"])), soft_wrap=True)
        console.print(Text("reason  ", "red") + Text(reason), soft_wrap=True)
        console.print()
    sign = "=" if outcome.complete else "is NOT"
    console.print(
        f"{outcome.sent} in {sign} {outcome.out} out + {outcome.dropped} dropped"
        f" + {outcome.dead} dead-lettered"
    )
    console.print(
        f"{outcome.rate:,.0f} events/s, all parts on this machine,"
        " Kafka to Kafka (make bench measures the sidecar alone)",
        soft_wrap=True,
    )


def _line(record: dict[str, Any]) -> str:
    return msgspec.json.encode(record).decode()
