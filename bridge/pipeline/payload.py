"""What of a record the filters see: all of it, or a JSON document in one of its fields.

Both classes have the same methods; a pipeline has one of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgpack
import msgspec
from msgspec import Raw
from msgspec.msgpack import Ext

from bridge.decoding import Opaque, decode_odd, decode_plain, encode_odd, text_header
from bridge.pipeline.chunk import Chunk, Item

#: Takes the time of an item, and why its event goes to the error stream.
Fail = Callable[[Raw, Exception], None]

_UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError)


class RecordPayload:
    """The filters see the record.

    Attributes:
        document: the field that holds a document, here none.
    """

    document: str | None = None
    _BINARY = (bytes, bytearray, memoryview)
    _OPAQUE = (*_BINARY, Ext, Opaque, Raw, msgpack.Timestamp)

    def __init__(self) -> None:
        self._views: dict[Any, Callable[[Raw], Any]] = {}
        self._lists: dict[Any, Callable[[bytes], list[Any]]] = {}

    def open(self, chunk: Chunk, fail: Fail, *, raw: bool) -> list[Item]:  # noqa: ARG002
        """Return a chunk's items, with their records undecoded if raw."""
        return chunk.decode_raw() if raw else chunk.decode()

    def decode(self, chunk: Chunk, item: Item) -> dict[Any, Any]:
        """Return what the filters see of an undecoded item."""
        time, record = item
        data = bytes(record)
        decoded = decode_plain(data)
        if decoded is None:
            chunk.require_map(time, record)
            decoded = decode_odd(data)
            chunk.odd[id(time)] = chunk.index(time)
        return decoded

    def view(self, chunk: Chunk, item: Item, view: Any) -> Any:
        """Return a view of an item, decoded or not."""
        time, record = item
        if type(record) is not Raw:
            return _convert(record, view, self._BINARY, str_keys=False)
        decoder = self._views.get(view)
        if decoder is None:
            decoder = self._views[view] = msgspec.msgpack.Decoder(view).decode
        try:
            return decoder(record)
        except _UNDECODABLE:
            chunk.require_map(time, record)
            return _convert(decode_odd(bytes(record)), view, self._BINARY, str_keys=False)

    def views(self, chunk: Chunk, items: list[Item], view: Any) -> list[Any] | None:
        """Return views of a whole chunk in one call, None if that cannot be."""
        if items is not chunk.items or not items or type(items[0][1]) is not Raw:
            return None
        decoder = self._lists.get(view)
        if decoder is None:
            decoder = self._lists[view] = msgspec.msgpack.Decoder(list[tuple[Raw, view]]).decode
        pairs = chunk.whole(decoder)
        return None if pairs is None else [seen for _, seen in pairs]

    def fields(self, view: Any) -> dict[Any, Any]:
        """Return a view's fields as a record would hold them."""
        fields: dict[Any, Any] = msgspec.to_builtins(view, builtin_types=self._OPAQUE)
        return fields

    def pack(self, chunk: Chunk, items: list[Item]) -> None:
        """Return None: records are encoded all at once."""

    def seal(self, chunk: Chunk, items: list[Item], fail: Fail) -> list[Item]:  # noqa: ARG002
        """Return items that can be encoded, and are as they came where nothing was changed."""
        odd = chunk.odd
        if not odd:
            return items
        return [
            (item[0], _as_it_came(chunk, item)) if id(item[0]) in odd else item for item in items
        ]


class NotJson(ValueError):
    """The field holds no JSON object."""


class JsonPayload:
    """The filters see the JSON document in a field of the record.

    Args:
        key: the field.

    Attributes:
        document: that field.
    """

    def __init__(self, key: str) -> None:
        self.document = self._key = key
        self._decode = msgspec.json.Decoder(dict[str, Any]).decode
        self._encode = msgspec.json.Encoder().encode
        self._views: dict[Any, Callable[[Any], Any]] = {}
        sole: Any = _sole(key)
        self._sole = sole
        self._decode_sole = msgspec.msgpack.Decoder(list[tuple[Raw, sole]]).decode
        self._heads = _Heads(b"\x81" + msgspec.msgpack.encode(key))

    def open(self, chunk: Chunk, fail: Fail, *, raw: bool) -> list[Item]:
        """Return a chunk's items, with their documents undecoded if raw."""
        sole = chunk.decode_as(self._decode_sole) if self._sole else None
        if sole is not None:
            if raw:
                return [(time, Raw(record.text)) for time, record in sole]
            decode = self._decode
            try:
                return [(time, decode(record.text)) for time, record in sole]
            except _UNDECODABLE:  # one of them at least: each is tried below
                pass
        items: list[Item] = []
        key = self._key
        for time, envelope in chunk.decode():
            try:
                text = envelope[key]
                if type(text) is bytes or type(text) is str:
                    items.append((time, Raw(text) if raw else self._document(text)))
                    continue
                error = NotJson(f"the field {key!r} holds a {type(text).__name__}, not JSON text")
            except KeyError:
                error = NotJson(f"the record has no field {key!r} that could hold a JSON document")
            except ValueError as unusable:
                error = NotJson(str(unusable))
            fail(time, error)
        return items

    def decode(self, chunk: Chunk, item: Item) -> dict[Any, Any]:  # noqa: ARG002
        """Return what the filters see of an undecoded item."""
        return self._document(bytes(item[1]))

    def view(self, chunk: Chunk, item: Item, view: Any) -> Any:  # noqa: ARG002
        """Return a view of an item, decoded or not."""
        document = item[1]
        if type(document) is not Raw:
            return _convert(document, view, (), str_keys=True)
        decoder = self._views.get(view)
        if decoder is None:
            decoder = self._views[view] = msgspec.json.Decoder(view).decode
        try:
            return decoder(document)
        except _UNDECODABLE:
            return _convert(self._document(bytes(document)), view, (), str_keys=True)

    def views(self, chunk: Chunk, items: list[Item], view: Any) -> None:
        """Return None: documents are decoded one by one."""

    def fields(self, view: Any) -> dict[Any, Any]:
        """Return a view's fields as a document would hold them."""
        fields: dict[Any, Any] = msgspec.to_builtins(view, str_keys=True)
        return fields

    def pack(self, chunk: Chunk, items: list[Item]) -> bytes | None:
        """Return all items packed, None where that is not as simple as putting pieces together."""
        if not chunk.items or type(chunk.items[0][1]) is not self._sole:
            return None
        encode, heads = self._encode, self._heads
        parts: list[bytes | Raw] = []
        try:
            for time, document in items:
                if type(document) is Raw:  # came through undecoded
                    return None
                text = encode(document)
                parts += (b"\x92", time, heads[len(text)], text)
        except (TypeError, ValueError, OverflowError, RecursionError):
            return None
        return b"".join(parts)

    def seal(self, chunk: Chunk, items: list[Item], fail: Fail) -> list[Item]:
        """Return items with the documents back in copies of their records."""
        sealed: list[Item] = []
        key = self._key
        for time, document in items:
            if type(document) is Raw:  # came through undecoded
                sealed.append((time, chunk.original(time)[1]))
                continue
            envelope = chunk.items[chunk.index(time)][1]
            try:
                text = self._text(document)
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                fail(time, error)
                continue
            if type(envelope) is self._sole:
                sealed.append((time, {key: text.decode()}))
                continue
            same_kind = text.decode() if type(envelope[key]) is str else text
            sealed.append((time, {**envelope, key: same_kind}))
        return sealed

    def _document(self, text: bytes | str) -> dict[str, Any]:
        try:
            return self._decode(text)
        except msgspec.ValidationError as error:
            reason: Exception = error
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            reason = error
            # The standard library takes what msgspec does not: halves of surrogate pairs, as a text
            # has that was cut in the middle of an emoji.
            try:
                unicode = text if isinstance(text, str) else text.decode()
                document = json.loads(unicode, parse_constant=_refuse_constant)
                if isinstance(document, dict):
                    return document
            except (ValueError, RecursionError):
                pass
        raise NotJson(f"the field {self._key!r} holds no JSON object: {reason}") from None

    def _text(self, document: dict[str, Any]) -> bytes:
        try:
            return self._encode(document)
        except (UnicodeEncodeError, RecursionError):
            return json.dumps(document, allow_nan=False, separators=(",", ":")).encode()


def _sole(key: str) -> Any:
    """Return a type for the record that most inputs make: the document and nothing else.

    Decoded as this it takes no dict an event, and what it is encoded to is known but for the
    document. None where the key cannot be a field's name.
    """
    try:
        return msgspec.defstruct(
            "Sole", [("text", str)], rename={"text": key}, forbid_unknown_fields=True, gc=False
        )
    except ValueError:  # msgspec: quotes, backslashes and control characters
        return None


class _Heads(dict[int, bytes]):
    """What stands before a text of some length: the map's header, its key, the text's header.

    Args:
        key: the first two.
    """

    _KEPT = 1 << 14  # most lengths come again and again; longer texts have time for a header

    def __init__(self, key: bytes) -> None:
        super().__init__()
        self._key = key

    def __missing__(self, length: int) -> bytes:
        head = self._key + text_header(length)
        if length < self._KEPT:
            self[length] = head
        return head


def _refuse_constant(name: str) -> None:
    raise NotJson(f"{name} is no JSON")


def _convert(record: dict[Any, Any], view: Any, binary: tuple[type, ...], *, str_keys: bool) -> Any:
    try:
        return msgspec.convert(record, view, builtin_types=binary, str_keys=str_keys)
    except (msgspec.ValidationError, UnicodeError):
        # msgspec wants all keys to be text, also those of fields that are not looked at.
        named = {key: value for key, value in record.items() if _is_text(key)}
        if len(named) == len(record):
            raise
        return msgspec.convert(named, view, builtin_types=binary, str_keys=str_keys)


def _is_text(key: Any) -> bool:
    try:
        key.encode()
    except (AttributeError, UnicodeEncodeError):
        return False
    return True


def _as_it_came(chunk: Chunk, item: Item) -> Any:
    """Return an odd record's own bytes if it is what they were decoded to, else what it became."""
    time, record = item
    if type(record) is Raw:
        return record
    original = chunk.original(time)[1]
    try:
        encoded = encode_odd(record)
        unchanged = encoded == encode_odd(decode_odd(bytes(original)))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return record  # the encoder will say so
    return original if unchanged else Raw(encoded)
