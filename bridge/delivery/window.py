"""The recent chunks: one that comes again is not processed twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from hashlib import blake2b
from pathlib import Path

from bridge.forward import Chunk

Key = bytes
_KEY_BYTES = 16
_SAMPLE = 64


class Window:
    """The chunks in flight and the ones acknowledged last.

    Args:
        size: how many acknowledged chunks to remember.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._acknowledged: OrderedDict[Key, None] = OrderedDict()
        self._in_flight: dict[Key, asyncio.Future[None]] = {}

    @staticmethod
    def key(chunk: Chunk) -> Key | None:
        """Return what a chunk is known by, None if its sender wants no acknowledgement.

        The id is the sender's own affair and may be a mere counter, so it stands for a chunk only
        together with its tag, its length and a sample of its bytes: the same chunk sent again
        is the same bytes, and other events under a reused id are not taken for it.
        """
        if chunk.ack is None:
            return None
        view = memoryview(chunk.entries)
        middle = len(view) // 2
        key = blake2b(chunk.ack, digest_size=_KEY_BYTES)
        key.update(chunk.tag.encode("utf-8", "surrogateescape"))
        key.update(len(view).to_bytes(8, "big"))
        for sample in (view[:_SAMPLE], view[middle : middle + _SAMPLE], view[-_SAMPLE:]):
            key.update(sample)
        return key.digest()

    def load(self, file: Path) -> None:
        """Take up what :meth:`save` wrote.

        Raises:
            OSError: the file is there and cannot be read.
        """
        with contextlib.suppress(FileNotFoundError):
            data = file.read_bytes()
            for start in range(0, len(data) - len(data) % _KEY_BYTES, _KEY_BYTES):
                self._remember(data[start : start + _KEY_BYTES])

    def save(self, file: Path) -> None:
        """Write the acknowledged chunks, for the process that comes after this one.

        Raises:
            OSError: the file cannot be written.
        """
        new = file.with_name(f"{file.name}.new")
        new.write_bytes(b"".join(self._acknowledged))
        new.replace(file)

    def was_acknowledged(self, key: Key) -> bool:
        """Return whether the chunk was acknowledged lately."""
        if key not in self._acknowledged:
            return False
        self._acknowledged.move_to_end(key)
        return True

    def in_flight(self, key: Key) -> asyncio.Future[None] | None:
        """Return what is done when the same chunk, received before, is delivered or given up."""
        return self._in_flight.get(key)

    def begin(self, key: Key) -> asyncio.Future[None]:
        """Note that a chunk is in flight."""
        future = asyncio.get_running_loop().create_future()
        self._in_flight[key] = future
        return future

    def acknowledge(self, key: Key) -> None:
        """Note that a chunk in flight has been delivered."""
        self._in_flight.pop(key).set_result(None)
        self._remember(key)

    def _remember(self, key: Key) -> None:
        self._acknowledged[key] = None
        if len(self._acknowledged) > self._size:
            self._acknowledged.popitem(last=False)

    def give_up(self, key: Key, error: BaseException) -> None:
        """Note that a chunk in flight was not delivered."""
        future = self._in_flight.pop(key)
        future.set_exception(error)
        future.exception()  # there may be nobody who waits for it
