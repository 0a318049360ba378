"""What ``fluent-bridge run --dev`` does otherwise: one worker, quick looks, plain words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from bridge.settings import Settings

if TYPE_CHECKING:
    from bridge.reload import Reloaded

_CHOSEN: dict[str, dict[str, object]] = {
    "filters": {"reload": True, "reload_interval": 0.1},
    "workers": {"count": 1},
    "log": {"format": "console"},
}


def for_development(settings: Settings) -> Settings:
    """Return the settings with what a person at work on filters wants, where nothing else is set.

    Args:
        settings: those that were given.
    """
    origins = settings.origins()
    groups = {}
    for group, chosen in _CHOSEN.items():
        unset = {
            name: one for name, one in chosen.items() if origins[f"{group}.{name}"] == "default"
        }
        groups[group] = getattr(settings, group).model_copy(update=unset)
    return settings.model_copy(update=groups)


def show(reloaded: Reloaded) -> None:
    """Say on stderr what a reload came to."""
    console = Console(stderr=True, highlight=False)
    for line in lines(reloaded):
        # As Text: file names and patterns have brackets, which rich would take for markup.
        console.print(Text.assemble(*line), soft_wrap=True)


def lines(reloaded: Reloaded) -> Iterator[list[tuple[str, str]]]:
    """Return what there is to say, a list of texts and their styles a line."""
    why = f"{', '.join(reloaded.files)} changed" if reloaded.files else "as asked"
    if reloaded.mistakes:
        yield [("not reloaded", "bold red"), (f": {why}, the filters from before go on", "")]
        for mistake in reloaded.mistakes:
            for line in mistake.splitlines():
                yield [("error: ", "bold red"), (line, "")]
        return
    count = len(reloaded.filters)
    yield [
        ("reloaded", "bold green"),
        (f": {why}; {count} filter{'s' * (count != 1)}, {reloaded.seconds:.1f} s", ""),
    ]
    for sign, style, filters in (
        ("+", "green", reloaded.added),
        ("-", "red", reloaded.removed),
        ("~", "yellow", reloaded.moved),
    ):
        for one in filters:
            yield [(f"  {sign} ", style), (one, "")]
