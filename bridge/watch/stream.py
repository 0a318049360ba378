"""The events that a sidecar shows, as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from bridge.watch.port import Port, Unreachable


class _Line(msgspec.Struct):
    """What tells a line of ``/tap`` from another."""

    record: msgspec.Raw = msgspec.Raw()
    trouble: str | None = None
    passed: int = 0
    missed: int = 0
    ended: bool = False


_decode = msgspec.json.Decoder(_Line).decode


class Stream:
    """Events and what became of each.

    Args:
        port: the sidecar's admin port.
        pattern: tags, in Fluentd's patterns.
        rate: events a second at most.
        errors: only those that go to the error stream.
        on_status: called every few seconds, and before events that came together.

    Attributes:
        passed: events that passed under such tags, as far as is known.
        missed: those that were to be shown, and came faster than they were read.
    """

    def __init__(
        self,
        port: Port,
        pattern: str,
        *,
        rate: float,
        errors: bool,
        on_status: Callable[[], None] = lambda: None,
    ) -> None:
        self.passed = 0
        self.missed = 0
        self._port = port
        self._query = {"pattern": pattern, "rate": f"{rate:g}", "errors": str(errors).lower()}
        self._on_status = on_status

    def __iter__(self) -> Iterator[bytes]:
        """Return events, each a JSON object, until the sidecar ends.

        Raises:
            Refused: the sidecar says why not.
            Unreachable: there is none, or the connection was lost.
        """
        for text in self._port.lines("/tap", self._query):
            try:
                line = _decode(text)
            except msgspec.MsgspecError as error:
                raise Unreachable(f"what {self._port.url} says is no event: {error}") from error
            if bytes(line.record):
                yield text
            elif line.trouble is None:
                self.passed, self.missed = line.passed, line.missed
                self._on_status()
                if line.ended:
                    return
        raise Unreachable(f"the connection to {self._port.url} was lost")
