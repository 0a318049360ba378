"""A sink of its own process, on the port that is its argument: acknowledges every chunk."""

from __future__ import annotations

import signal
import sys
import threading

from bridge.local.sink import Sink


def main() -> None:
    """Run until SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with Sink(lambda _: None, port=int(sys.argv[1])):
        ended.wait()


if __name__ == "__main__":
    main()
