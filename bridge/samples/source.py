"""A file or standard input, decompressed, and what format it is of."""

from __future__ import annotations

import gzip
import io
import os
import stat
import sys
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self, cast, get_args

import msgspec

from bridge.errors import SampleError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Format = Literal["msgpack", "jsonl", "json", "csv"]
FORMATS: tuple[Format, ...] = get_args(Format)

STDIN = "-"

#: What reading :attr:`Source.stream` raises where the file is cut off or broken.
BROKEN = (OSError, EOFError, zlib.error, zstd.ZstdError)

_BUFFER = 256 << 10
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BOM = b"\xef\xbb\xbf"
_COMPRESSED = {".gz", ".zst"}
# Fluentd's buffers have .log and .buf (plugin/buf_file.rb, buf_file_single.rb), as have other
# files: those are looked into.
_BY_NAME: dict[str, Format] = {
    ".msgpack": "msgpack",
    ".mp": "msgpack",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
}


class Source:
    """An open file of events; a context that closes it.

    Compression, gzip or zstd, is told by the first bytes, whatever the name.

    Args:
        path: the file, ``-`` for standard input.
        format: what it is; by default told by its name, else by its first bytes.

    Attributes:
        path: the file.
        name: what to call it in messages.
        format: what it is; None where it is empty.
        size: its bytes as they are stored, None where that is not known.
        stream: its bytes, decompressed.

    Raises:
        SampleError: it cannot be read, or its format cannot be told.
    """

    def __init__(self, path: str | Path, format: Format | None = None) -> None:  # noqa: A002
        self.path = None if str(path) == STDIN else Path(path)
        self.name = "standard input" if self.path is None else str(path)
        try:
            self._file = (
                io.BufferedReader(io.FileIO(sys.stdin.fileno(), closefd=False), _BUFFER)
                if self.path is None
                else io.BufferedReader(io.FileIO(self.path), _BUFFER)
            )
        except OSError as error:
            raise SampleError(
                f"cannot be read: {error.strerror}; give a file of events, or - for standard input",
                file=self.name,
            ) from error
        status = os.fstat(self._file.fileno())
        self.size = status.st_size if stat.S_ISREG(status.st_mode) else None
        self.format: Format | None = None
        try:
            self.stream = self._decompressed()
            self.format = self._told(format)
        except BROKEN as error:
            self.close()
            raise SampleError(
                f"cannot be read: {error}; it is broken: copy it anew", file=self.name
            ) from error
        except BaseException:
            self.close()
            raise

    @property
    def position(self) -> int | None:
        """How far of :attr:`size` it has been read, None where that is not known."""
        return self.size if self.size is None or self._file.closed else self._file.tell()

    def close(self) -> None:
        """Close the file; standard input stays open."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _decompressed(self) -> io.BufferedReader[Any]:
        head = self._file.peek(4)
        file = cast("BinaryIO", self._file)
        opened: gzip.GzipFile | zstd.ZstdFile
        if head.startswith(_GZIP):
            opened = gzip.GzipFile(fileobj=file)
        elif head.startswith(_ZSTD):
            opened = zstd.ZstdFile(file)
        else:
            return self._file
        return io.BufferedReader(_AsItComes(opened), _BUFFER)

    def _told(self, format: Format | None) -> Format | None:  # noqa: A002
        if format is not None:
            return format
        suffixes = [] if self.path is None else self.path.suffixes
        if suffixes and suffixes[-1] in _COMPRESSED:
            suffixes.pop()
        if suffixes and suffixes[-1].lower() in _BY_NAME:
            return _BY_NAME[suffixes[-1].lower()]
        head = self.stream.peek(1)
        text = head.removeprefix(_BOM).lstrip()
        if not text and len(head) < _BUFFER:
            return None
        if text.startswith(b"["):
            return "json"
        if text.startswith(b"{"):
            return "json" if _goes_on(text) else "jsonl"
        # A map or an array: what an event, a record or a message begins with.
        if 0x80 <= head[0] <= 0x9F or 0xDC <= head[0] <= 0xDF:
            return "msgpack"
        raise SampleError(
            f"its format cannot be told from its first bytes ({head[:16]!r}): say which it is with"
            f" --format {'|'.join(FORMATS)}",
            file=self.name,
        )


class _AsItComes(io.RawIOBase):
    """A decompressed file that gives what it has, where read() would lose it at a damaged end."""

    def __init__(self, file: gzip.GzipFile | zstd.ZstdFile) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer)
        data = self._file.read1(len(view))
        view[: len(data)] = data
        return len(data)


def _goes_on(text: bytes) -> bool:
    """Return whether a document goes on after its first line."""
    line, newline, _ = text.partition(b"\n")
    if not newline:
        return False
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except msgspec.DecodeError as error:
        return "truncated" in str(error)
    return False
