"""Fluentd's Forward protocol v1: both roles without input or output, and a blocking client.

Source: https://github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1
"""

from bridge.forward.auth import ClientAuth, ServerAuth
from bridge.forward.client import Client, tls_context
from bridge.forward.messages import (
    Acked,
    Announced,
    Chunk,
    Ready,
    SendBytes,
    ack_message,
    packed_forward,
)
from bridge.forward.protocol import Receiver, Sender

__all__ = [
    "Acked",
    "Announced",
    "Chunk",
    "Client",
    "ClientAuth",
    "Ready",
    "Receiver",
    "SendBytes",
    "Sender",
    "ServerAuth",
    "ack_message",
    "packed_forward",
    "tls_context",
]
