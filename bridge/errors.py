"""Every exception that fluent-bridge raises.

    BridgeError
    ├── SettingsError            a setting is wrong; says which, where it came from, what to do
    ├── LoadError                a file of the user's cannot be used; says file, line, what to do
    ├── SampleError              a file of events cannot be read; says file, line or byte
    ├── ProtocolError            a peer sent what is not the Forward protocol
    │   ├── MessageTooLarge      ... or more of it than the limit allows
    │   ├── NotAnEvent           ... or entries that are no events
    │   └── AuthenticationError  ... or the wrong key, user or password
    ├── DeliveryError            a chunk could not be delivered
    │   ├── ConnectionLost       the peer went away before it acknowledged
    │   └── NotAcknowledged      the peer did not acknowledge in time
    └── Verdict                  raised by a filter to decide about its event
        ├── Reject               the event goes to the error stream
        └── Retry                the whole chunk comes again later

Parts that only one module raises and handles have their exceptions there.
"""

from __future__ import annotations

from pathlib import Path


class BridgeError(Exception):
    """The root of the tree."""


class SettingsError(BridgeError):
    """A setting is missing, unknown or has a value that cannot be used."""


class LoadError(BridgeError):
    """A file of the user's cannot be used: filters, cases, a configuration of Fluentd's.

    Args:
        message: what is wrong and what to do about it.
        file: the file at fault.
        line: the line at fault, counted from 1; 0 where the whole file is.
    """

    def __init__(self, message: str, *, file: str | Path, line: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.file = Path(file)
        self.line = line

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else str(self.file)
        return f"{where}: {self.message}"


class SampleError(BridgeError):
    """A file of events cannot be read, or holds something that is no event.

    Args:
        message: what is wrong and what to do about it.
        file: the file at fault.
        line: the line at fault, counted from 1; 0 where it has no lines.
        offset: the byte at fault, counted from 0; None where that is not known.
    """

    def __init__(
        self, message: str, *, file: str | Path, line: int = 0, offset: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = str(file)
        self.line = line
        self.offset = offset

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        if self.offset is not None:
            where += f", byte {self.offset}"
        return f"{where}: {self.message}"


class ProtocolError(BridgeError):
    """A peer's bytes are not the Forward protocol; its connection is closed."""


class MessageTooLarge(ProtocolError):
    """A message, or what it decompresses to, is over the limit."""


class NotAnEvent(ProtocolError):
    """Entries hold something that is not ``[time, record]``."""


class AuthenticationError(ProtocolError):
    """The peer's shared key, user name or password is wrong, or it has none."""


class DeliveryError(BridgeError):
    """A chunk could not be delivered."""


class ConnectionLost(DeliveryError):
    """The connection ended before the chunk was acknowledged."""


class NotAcknowledged(DeliveryError):
    """No acknowledgement came within the time allowed."""


class Verdict(BridgeError):
    """What a filter raises to decide about an event, rather than to report a failure."""


class Reject(Verdict):
    """Send the event to the error stream with this reason.

    Args:
        reason: why, in words for whoever reads the dead letter.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Retry(Verdict):
    """Do not acknowledge the chunk: all of it is run again after the delay.

    The chunk is held in memory meanwhile. If that lasts longer than ``delivery.patience`` its
    sender sends it again, and gets the outcome of this one.

    Args:
        delay: seconds to wait at least; less than a tenth is a tenth.

    Raises:
        ValueError: the delay is not a number of seconds.
    """

    def __init__(self, delay: float = 1.0) -> None:
        if not 0 <= delay < float("inf"):
            raise ValueError(f"bridge.Retry takes seconds to wait, not {delay!r}")
        self.delay = max(float(delay), 0.1)
        super().__init__(f"the chunk is to come again after {self.delay:g} s")
