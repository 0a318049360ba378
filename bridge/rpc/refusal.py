"""How a call ends that is not answered."""

from __future__ import annotations

from grpc import StatusCode

from bridge.errors import BridgeError

# A header of more than 8 KiB may not arrive, and the caller then gets RESOURCE_EXHAUSTED whatever
# the code was (gRPC's max_metadata_size). gRPC writes a character in up to 12 bytes.
_LONGEST = 512


class Refusal(BridgeError):
    """A call is ended with a status code; the head of ``sidecar.proto`` says what each means.

    Args:
        code: the status code.
        message: what is wrong and what to do, for the caller's log.
        delay: seconds after which the caller may come again, if that is known.
    """

    def __init__(self, code: StatusCode, message: str, delay: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.delay = delay

    @property
    def details(self) -> str:
        """The message, without its middle where it is too long to be sent."""
        message = str(self)
        if len(message) <= _LONGEST:
            return message
        half = _LONGEST // 2  # a long tag stands at the beginning, what is wrong at the end
        return f"{message[:half]}...{message[-half:]}"

    @property
    def trailers(self) -> tuple[tuple[str, str], ...]:
        """The trailing metadata.

        Source: gRPC proposal A6, "Pushback".
        """
        if self.delay is None:
            return ()
        return (("grpc-retry-pushback-ms", str(round(self.delay * 1000))),)
