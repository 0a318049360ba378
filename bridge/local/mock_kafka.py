"""librdkafka's mock cluster as a process: prints its address, lives until its input ends.

A process of its own because it aborts its host on a group of mixed assignors (rdkafka_mock_cgrp.c).
"""

from __future__ import annotations

import sys

from confluent_kafka import Producer


def main() -> None:
    """Run one broker, ``python -m bridge.local.mock_kafka``, until end of file or a signal."""
    # The given address is replaced by the cluster's, which is said at log level 5.
    owner = Producer(
        {
            "bootstrap.servers": "none:0",
            "test.mock.num.brokers": 1,
            "log_level": 3,
        }
    )
    brokers = owner.list_topics(timeout=10).brokers.values()
    print(",".join(f"{broker.host}:{broker.port}" for broker in brokers), flush=True)  # noqa: T201
    sys.stdin.read()


if __name__ == "__main__":
    main()
