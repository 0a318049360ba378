"""Where an object ends that is still arriving.

``msgpack.Unpacker.skip`` does nearly all of the work.
"""

from __future__ import annotations

import msgpack

from bridge.decoding import scan
from bridge.errors import ProtocolError


class Scanner:
    """Finds the end of an object that is still arriving, and looks at each byte once.

    Args:
        pos: where the object begins. Positions are relative to a start that the caller chooses, and
            may move in its buffer.

    Attributes:
        pos: where the object ends, once :meth:`scan` has found it.
    """

    # Bytes of the next message are fed in vain: so little at first, more for longer objects.
    _FIRST_FEED = 512
    _FULL_FEED = 64 << 10

    __slots__ = ("_fed", "_feed", "_todo", "_unpacker", "pos")

    def __init__(self, pos: int) -> None:
        self.pos = pos
        self._fed = pos
        self._feed = self._FIRST_FEED
        self._todo = 1
        # No bound but the caller's on what arrives.
        self._unpacker: msgpack.Unpacker | None = msgpack.Unpacker(
            max_buffer_size=0, read_size=8 * self._FIRST_FEED
        )

    def scan(self, data: bytearray, start: int, end: int) -> bool:
        """Go on with data that begins with what it had before.

        Args:
            data: a buffer.
            start: where position 0 is in it now.
            end: where in it the data ends.

        Returns:
            Whether the object is complete.

        Raises:
            ProtocolError: the data is not msgpack.
        """
        while self._unpacker is not None and start + self._fed < end:
            fed = min(start + self._fed + self._feed, end)
            self._unpacker.feed(memoryview(data)[start + self._fed : fed])
            self._fed = fed - start
            self._feed = min(self._feed * 2, self._FULL_FEED)
            try:
                self._unpacker.skip()
            except msgpack.OutOfData:
                continue
            except msgpack.StackError:  # nested too deeply for it
                self._unpacker = None
            except msgpack.FormatError:
                raise ProtocolError("not msgpack: it holds the byte 0xc1") from None
            else:
                self.pos += self._unpacker.tell()
                return True
        if self._unpacker is not None:
            return False
        at, self._todo = scan(data, start + self.pos, end, self._todo)
        self.pos = at - start
        return not self._todo
