"""The Forward server: sockets upstream, acknowledgements back."""

from bridge.server.connection import Limits
from bridge.server.server import Server

__all__ = ["Limits", "Server"]
