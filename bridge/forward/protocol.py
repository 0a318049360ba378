"""Both roles of the Forward protocol v1, with no input or output of their own.

:class:`Receiver` is the server's, :class:`Sender` the client's.
"""

from bridge.forward.receiver import Receiver
from bridge.forward.sender import Sender

__all__ = ["Receiver", "Sender"]
