"""A sink of its own process: acknowledges every chunk, prints its port first."""

from __future__ import annotations

import signal
import threading

from bridge.demo.sink import Sink


def main() -> None:
    """Run until SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with Sink(lambda _: None) as sink:
        print(sink.port, flush=True)
        ended.wait()


if __name__ == "__main__":
    main()
