"""The ways to look at a sidecar's figures: once, as JSON, or as they change."""

from __future__ import annotations

import sys
import time

import msgspec
from rich.console import Console
from rich.live import Live

from bridge.watch.figures import Figures, figures
from bridge.watch.metrics import scrape, scrapes
from bridge.watch.port import Port, Unreachable
from bridge.watch.screen import Screen


def print_once(port: Port, interval: float) -> None:
    """Print the figures of one interval.

    Args:
        port: the sidecar's admin port.
        interval: seconds.

    Raises:
        Unreachable, Refused: there is none.
    """
    before, after = next(scrapes(port, interval))
    Console(highlight=False).print(Screen(figures(before, after), port.url, whole=True))


def print_json(port: Port, interval: float, *, once: bool) -> None:
    """Print figures as JSON, a line an interval.

    Args:
        port: the sidecar's admin port.
        interval: seconds.
        once: end after the first.

    Raises:
        Unreachable, Refused: there is none, or no longer.
    """
    for before, after in scrapes(port, interval):
        line = msgspec.json.encode(figures(before, after))
        sys.stdout.write(line.decode() + "\n")
        sys.stdout.flush()
        if once:
            return


def show(port: Port, interval: float) -> None:
    """Show figures as they change, over restarts of the sidecar, until Ctrl-C.

    Args:
        port: the sidecar's admin port.
        interval: seconds.

    Raises:
        Unreachable, Refused: there was none from the start.
    """
    before = scrape(port)
    seen: Figures | None = None
    with Live(console=Console(highlight=False), screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval if seen else min(interval, 0.5))
            try:
                after = scrape(port)
            except Unreachable as error:
                if seen is None:
                    raise
                trouble = {"sidecar": str(error).partition(";")[0]}
                lost = msgspec.structs.replace(seen, ready=False, trouble=trouble)
                live.update(Screen(lost, port.url), refresh=True)
                continue
            seen = figures(before, after)
            before = after
            live.update(Screen(seen, port.url), refresh=True)
