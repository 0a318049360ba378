"""Bytes received and not yet understood."""

from __future__ import annotations

_SIZE = 64 << 10
_FIRST_BODY = 1 << 20


class InputBuffer:
    """A buffer that is written at its end and read at its start, with a bypass for a long body.

    A ``bytearray`` is never resized here but replaced: the event loop may still hold a view of it
    (uvloop does while it calls ``buffer_updated``), and resizing would raise ``BufferError``.

    Attributes:
        data: the buffer.
        start: where the unread bytes begin in it.
        end: where they end.
    """

    __slots__ = ("_body", "_body_received", "_body_size", "_consumed", "data", "end", "start")

    def __init__(self) -> None:
        self.data = bytearray(_SIZE)
        self.start = 0
        self.end = 0
        self._consumed = 0
        self._body: bytearray | None = None
        self._body_size = 0
        self._body_received = 0

    def __len__(self) -> int:
        return self.end - self.start

    @property
    def pending(self) -> int:
        """Bytes received since the last :meth:`complete`."""
        return self._consumed + self._body_received + len(self)

    @property
    def body_missing(self) -> int:
        """Bytes of the body that have not been received."""
        return self._body_size - self._body_received

    def space(self) -> memoryview:
        """Return where to write, never empty; say by :meth:`written` what was written."""
        if self._body is not None and self.body_missing:
            return memoryview(self._body)[self._body_received :]
        if self.start == self.end:
            self.start = self.end = 0
        if self.end == len(self.data) or (not self.end and len(self.data) > _SIZE):
            self._make_room()
        return memoryview(self.data)[self.end :]

    def written(self, count: int) -> None:
        """Add what was written to what is unread."""
        if self._body is not None and self.body_missing:
            self._body_received += count
            self._grow_body()
        else:
            self.end += count

    def consume(self, count: int) -> None:
        """Drop bytes at the start."""
        self.start += count
        self._consumed += count

    def complete(self) -> None:
        """Note that what was consumed was a complete message."""
        self._consumed = self._body_received = self._body_size = 0

    def copy(self, first: int, last: int) -> bytearray:
        """Return unread bytes, positions counted from the first one."""
        return self.data[self.start + first : self.start + last]

    def begin_body(self, size: int) -> None:
        """Let the next bytes be a body; what there is of it already moves there.

        Args:
            size: bytes of the body. This much is allocated only as it comes true.
        """
        count = len(self)
        assert count < size
        body = bytearray(max(min(size, _FIRST_BODY), count))
        body[:count] = memoryview(self.data)[self.start : self.end]
        self.start = self.end
        self._body, self._body_size, self._body_received = body, size, count
        self._grow_body()

    def take_body(self) -> bytearray:
        """Return the body, complete, itself and no copy of it."""
        body, self._body = self._body, None
        assert body is not None
        return body

    def _grow_body(self) -> None:
        body = self._body
        assert body is not None
        if self._body_received == len(body) < self._body_size:
            self._body = bytearray(min(2 * len(body), self._body_size))
            self._body[: len(body)] = body

    def _make_room(self) -> None:
        unread = len(self)
        size = _SIZE
        while size < 2 * unread:
            size *= 2
        if size == len(self.data):
            self.data[:unread] = self.data[self.start : self.end]  # its size stays as it is
        else:
            data = bytearray(size)
            data[:unread] = memoryview(self.data)[self.start : self.end]
            self.data = data
        self.start, self.end = 0, unread
