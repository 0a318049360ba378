"""Page views get the session that they belong to, as far as one chunk can tell."""

import math
from collections import defaultdict

import bridge


@bridge.batch("web.view")
class Sessionize:
    """Add ``session``, its id, and ``session_view``, the view's number in it.

    A session is a user's views with no pause longer than the gap. Only the views of this chunk are
    known: one that is cut by the chunk's end goes on in the next under another id.

    Args:
        gap_minutes: the longest pause within a session.
    """

    def __init__(self, gap_minutes: float = 30) -> None:
        self._gap = gap_minutes * 60

    def __call__(self, events: list[bridge.Event]) -> list[bridge.Event | bridge.Reject]:
        results: list[bridge.Event | bridge.Reject] = list(events)
        views: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
        for index, event in enumerate(events):
            user = event.record.get("user")
            if user is None:
                # Put in the event's place, not raised: that would run each event alone, and a view
                # alone is a session of its own.
                results[index] = bridge.Reject("a view without a user is in no session")
            else:
                views[str(user)].append((float(event.time), index))
        for user, times in views.items():
            times.sort()  # servers send late, and several at once
            session, number, last = "", 0, -math.inf
            for time, index in times:
                if time - last > self._gap:
                    # Made of what it holds, not by chance: a chunk that comes again gets the same.
                    session, number = f"{user}-{time:.3f}", 0
                number += 1
                last = time
                record = events[index].record
                record["session"], record["session_view"] = session, number
        return results
