"""Whether what became of a case's events is what the case wants, and what is wrong if not."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from bridge.errors import Retry
from bridge.events import Event, EventTime
from bridge.testing.case import Case, Reason, Wanted
from bridge.testing.difference import Difference, differences, shown
from bridge.testing.document import line_at, line_of
from bridge.testing.harness import Harness
from bridge.testing.result import DeadLetter, Result

_MOST = 20  # differences that are shown


def run(case: Case, harness: Harness) -> list[str]:
    """Run a case, and return what is wrong, a line each; nothing if it passes.

    Args:
        case: the case.
        harness: the filters.
    """
    try:
        chunk = harness.chunk(case.tag, [(one.time, one.record) for one in case.given])
    except (TypeError, ValueError, OverflowError) as error:
        return [f"the input cannot be sent: {error}"]
    result = harness.run(chunk)
    if case.retry or result.retry is not None:
        return [*_retry(case, result)]
    lines = [*_output(case, result.events), *_letters(case, result.dead_letters)]
    if lines and result.dropped and not result.events:
        lines.append(f"dropped: {result.dropped} of {result.received}")
    return lines


def text(case: Case, lines: list[str]) -> str:
    """Return what is to be said of a case that failed: where it is, and what is wrong."""
    here, file = Path.cwd(), case.file
    if file.is_relative_to(here):
        file = file.relative_to(here)
    return "\n".join([f"{file}:{case.line}: {case.name}", *(f"  {one}" for one in lines)])


def _retry(case: Case, result: Result) -> Iterator[str]:
    if result.retry is None:
        became = [
            f"{number} {what}"
            for number, what in (
                (len(result.events), "came out"),
                (result.dropped, "dropped"),
                (len(result.dead_letters), "rejected"),
            )
            if number
        ]
        yield f"no filter raised bridge.Retry: {', '.join(became)}"
    elif not case.retry:
        yield (
            f"a filter raised bridge.Retry ({Retry(result.retry)}); if it should, the case wants"
            " `retry: true`"
        )


def _output(case: Case, events: list[Event]) -> Iterator[str]:
    tags = list(dict.fromkeys([*(one.tag for one in case.wanted), *(one.tag for one in events)]))
    for tag in tags:
        wanted = [one for one in case.wanted if one.tag == tag]
        got = [one for one in events if one.tag == tag]
        yield from _under(tag, wanted, got)


def _under(tag: str, wanted: list[Wanted], got: list[Event]) -> Iterator[str]:
    """Compare what came out under one tag, in order."""
    while wanted and got and not any(_of(wanted[0], got[0])):
        wanted, got = wanted[1:], got[1:]
    while wanted and got and not any(_of(wanted[-1], got[-1])):
        wanted, got = wanted[:-1], got[:-1]
    for one, event in zip(wanted, got, strict=False):
        found = list(_of(one, event))
        if found:
            several = f", the one of line {line_of(one.node)}" if len(wanted) > 1 else ""
            yield f"an event under {tag}{several}:"
            for difference in found[:_MOST]:
                yield from _difference(one, difference)
            if len(found) > _MOST:
                yield f"  ... and {len(found) - _MOST} more that differ"
    for one in wanted[len(got) :]:
        yield f"line {line_of(one.node)}: did not come out under {tag}: {shown(one.record)}"
    for event in got[len(wanted) :]:
        yield f"came out under {tag}, and should not: {shown(event.record)}"


def _of(wanted: Wanted, got: Event) -> Iterator[Difference]:
    yield from differences(wanted.record, got.record)
    if got.time not in wanted.times:
        time = got.time
        yield Difference(
            ("(time)",),
            " or ".join(sorted(one.isoformat() for one in wanted.times)),
            time.isoformat() if isinstance(time, EventTime) else time,
        )


def _difference(wanted: Wanted, difference: Difference) -> Iterator[str]:
    line = line_at(wanted.node, difference.path)
    expected, got = difference.texts()
    yield f"  {difference.name}{f' (line {line})' if line else ''}"
    yield f"    - expected  {expected}"
    yield f"    + got       {got}"


def _letters(case: Case, letters: list[DeadLetter]) -> Iterator[str]:
    left = list(letters)
    missed: list[Reason] = []
    for reason in case.reasons:
        fitting = next((one for one in left if _fits(reason, one)), None)
        if fitting is None:
            missed.append(reason)
        else:
            left.remove(fitting)
    for reason, letter in zip(missed, left, strict=False):
        yield f"rejected for another reason (line {reason.line}):"
        yield f"  - expected  {_wanted(reason)}"
        yield f"  + got       {_got(letter)}"
        yield from _traceback(letter)
    for line, same in groupby(missed[len(left) :], key=lambda reason: reason.line):
        reasons = list(same)
        number = f"{len(reasons)} events" if len(reasons) > 1 else "an event"
        yield f"line {line}: not rejected, and {number} should be: {_wanted(reasons[0])}"
    for letter in left[len(missed) :]:
        yield f"rejected, and should not be, by {_got(letter)}"
        yield f"  the event: {shown(letter.record)}"
        yield from _traceback(letter)


def _fits(reason: Reason, letter: DeadLetter) -> bool:
    return (
        (reason.text is None or reason.text in letter.reason)
        and (reason.error_class is None or reason.error_class == letter.error_class)
        and (reason.message is None or reason.message in letter.message)
        and (reason.filter is None or reason.filter == letter.filter)
    )


def _wanted(reason: Reason) -> str:
    if reason.text is not None:
        return f"a reason that holds {shown(reason.text)}"
    parts = {
        "class": reason.error_class,
        "message": reason.message,
        "filter": reason.filter,
    }
    return ", ".join(f"{key}: {value}" for key, value in parts.items() if value is not None)


def _got(letter: DeadLetter) -> str:
    by = f"{letter.filter}: " if letter.filter else ""
    return f"{by}{letter.error_class}: {letter.message}"


def _traceback(letter: DeadLetter) -> Iterator[str]:
    # Its last line is the reason, which has been said.
    for line in (letter.traceback or "").splitlines()[:-1]:
        yield f"    {line}"
