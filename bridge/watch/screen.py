"""A sidecar's figures, drawn for a terminal of 80 columns and 24 lines or more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from bridge.watch.figures import Figures, Filter, Worker

_FIXED_LINES = 11  # all but the tables' rows, the roads and what is wrong
_FEWEST_ROWS = 2
_BAR = 8
_BUSY, _FULL = 0.75, 0.95

_Row = TypeVar("_Row")


class Screen:
    """What ``fluent-bridge top`` shows.

    Args:
        figures: what a sidecar did.
        url: where it is.
        whole: show every row, however many there are.
    """

    def __init__(self, figures: Figures, url: str, *, whole: bool = False) -> None:
        self._figures = figures
        self._url = url
        self._whole = whole

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Return the parts, as tall as the terminal allows."""
        seen = self._figures
        roads = list(_roads(seen))
        notes = list(_notes(seen))
        workers, filters = list(seen.workers), list(seen.filters)
        if not self._whole:
            taken = len(roads) + len(notes) + len(seen.trouble) + _FIXED_LINES
            rows = max((options.height or console.height) - taken, 2 * _FEWEST_ROWS)
            # Who needs less than half leaves the rest to the other.
            most = max(rows - len(workers), rows - rows // 2)
            filters = _first(filters, most)
            workers = _first(workers, rows - min(len(seen.filters), most))
        parts: list[RenderableType] = [
            *_head(seen, self._url),
            Text(),
            _events(seen),
            Text(),
            *roads,
            Text(),
            _processes(seen, workers),
            Text(),
            _filters(seen, filters),
        ]
        if notes:
            parts += [Text(), *notes]
        yield Group(*parts)


def _first(rows: list[_Row], most: int) -> list[_Row]:
    """Return as many as there is room for, with a line to say how many more there are."""
    return rows if len(rows) <= most else rows[: most - 1]


def _head(seen: Figures, url: str) -> Iterable[Text]:
    state = ("ready", "bold green") if seen.ready else ("not ready", "bold red")
    yield Text.assemble(
        ("fluent-bridge ", "bold"),
        (seen.version, "bold"),
        ("  ", ""),
        (url, "dim"),
        ("  ", ""),
        state,
        (f"  up {_duration(seen.uptime)}", "dim"),
        no_wrap=True,
        overflow="ellipsis",
    )
    for name, why in seen.trouble.items():
        yield Text.assemble(
            (f"  {name}: ", "bold yellow"), (why, "yellow"), no_wrap=True, overflow="ellipsis"
        )


def _events(seen: Figures) -> Table:
    table = _table("events/s", "in", "out", "dropped", "errors", "of all", "chunks/s", "MB/s")
    part = seen.errors / seen.events_in if seen.events_in else 0.0
    style = "red" if seen.errors else ""
    table.add_row(
        "",
        Text(_count(seen.events_in), "bold"),
        Text(_count(seen.events_out), "bold"),
        _count(seen.dropped),
        Text(_count(seen.errors), style),
        Text(f"{part:.2%}".replace("%", " %"), style),
        _count(seen.chunks),
        f"{seen.received_bytes / 1e6:,.1f}",
    )
    return table


def _roads(seen: Figures) -> Iterable[Text]:
    part = seen.in_flight_bytes / (seen.in_flight_limit_bytes or 1)
    yield Text.assemble(
        ("in flight  ", "dim"),
        *_bar(part),
        f" {_mebibytes(seen.in_flight_bytes)} of {_mebibytes(seen.in_flight_limit_bytes)} MiB",
        ("    queue  ", "dim"),
        f"{seen.queue:,.0f} chunks, {_milliseconds(seen.queue_seconds)} ms each",
    )
    if seen.connections or seen.downstream_connections or not seen.calls:
        yield Text.assemble(
            ("Forward    ", "dim"),
            f"{seen.connections:.0f} in, {seen.downstream_connections:.0f} out,"
            f" delivered in {_milliseconds(seen.delivery_seconds)} ms",
            *_alarm(seen.delivery_retries, "retries/s"),
            *_alarm(seen.handed_back, "handed back/s"),
            *_alarm(seen.duplicates, "again/s"),
        )
    for call in seen.calls:
        yield Text.assemble(
            ("gRPC       ", "dim"),
            f"{call.method} {_count(call.calls)}/s, {_milliseconds(call.seconds)} ms each,"
            f" {seen.calls_in_progress:.0f} in progress",
            *_alarm(call.failed, "failed/s"),
        )


def _processes(seen: Figures, workers: Sequence[Worker]) -> Table:
    table = _table("process", "CPU", "MiB", "chunks/s", "ms a chunk")
    table.add_row("transport", _share(seen.cpu), _mebibytes(seen.resident_bytes), "", "")
    for one in workers:
        table.add_row(
            f"worker {one.name}",
            _share(one.cpu),
            _mebibytes(one.resident_bytes),
            f"{one.chunks:,.1f}",
            _milliseconds(one.chunk_seconds),
        )
    return _with_rest(table, len(seen.workers) - len(workers), "workers")


def _filters(seen: Figures, filters: Sequence[Filter]) -> Table:
    table = _table("filter", "workers' time", "µs an event", "events/s", "dropped/s", "errors/s")
    for one in filters:
        table.add_row(
            Text(one.name, "bold"),
            _share(one.share),
            f"{one.event_seconds * 1e6:,.2f}",
            _count(one.events),
            _count(one.dropped),
            Text(_count(one.errors), "red" if one.errors else ""),
        )
    return _with_rest(table, len(seen.filters) - len(filters), "filters")


def _notes(seen: Figures) -> Iterable[Text]:
    notes = [f"{what} {count:,}" for what, count in seen.totals.items()]
    notes += [f"reloads {result} {count:,}" for result, count in seen.reloads.items() if count]
    if notes:
        yield Text.assemble(
            ("since the start  ", "dim"), ", ".join(notes), no_wrap=True, overflow="ellipsis"
        )


def _table(first: str, *columns: str) -> Table:
    table = Table(
        box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False, show_edge=False
    )
    table.add_column(first, no_wrap=True, min_width=9, max_width=20)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _with_rest(table: Table, left_out: int, what: str) -> Table:
    if left_out:
        table.add_row(Text(f"… {left_out} more {what}", "dim"))
    return table


def _share(part: float) -> Text:
    return Text.assemble(*_bar(part), f" {part:4.0%}".replace("%", " %"))


def _bar(part: float) -> Iterable[tuple[str, str]]:
    filled = min(round(part * _BAR), _BAR)
    style = "red" if part > _FULL else "yellow" if part > _BUSY else "green"
    return (("█" * filled, style), ("░" * (_BAR - filled), "dim"))


def _alarm(rate: float, what: str) -> Iterable[tuple[str, str]]:
    return [(f", {_count(rate)} {what}", "yellow")] if rate else []


def _count(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 or rate == 0 else f"{rate:,.1f}"


def _mebibytes(size: float) -> str:
    return f"{size / (1 << 20):,.0f}" if size >= 10 << 20 or not size else f"{size / (1 << 20):.1f}"


def _milliseconds(seconds: float) -> str:
    value = seconds * 1e3
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d " * bool(days) + f"{hours}:{minutes:02}:{seconds:02}"
