"""A Kafka that pods reach."""

import pytest
from kubernetes_node import Node

from bridge.local.kafka import KafkaBroker


@pytest.fixture(scope="session")
def broker(node, tmp_path_factory):
    """A real Kafka at the address by which pods reach this machine."""
    if why := KafkaBroker.missing():
        pytest.skip(why)
    one = KafkaBroker(tmp_path_factory.mktemp("kafka"), host=Node.ADDRESS)
    try:
        one.start()
        yield one
    finally:
        one.stop()
