from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DescribeRequest(_message.Message):
    __slots__ = ("plugin_version", "requires")
    PLUGIN_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUIRES_FIELD_NUMBER: _ClassVar[int]
    plugin_version: str
    requires: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, plugin_version: _Optional[str] = ..., requires: _Optional[_Iterable[str]] = ...) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("version", "capabilities", "max_request_bytes", "filters")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    version: str
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    max_request_bytes: int
    filters: _containers.RepeatedCompositeFieldContainer[Filter]
    def __init__(self, version: _Optional[str] = ..., capabilities: _Optional[_Iterable[str]] = ..., max_request_bytes: _Optional[int] = ..., filters: _Optional[_Iterable[_Union[Filter, _Mapping]]] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("name", "pattern")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    name: str
    pattern: str
    def __init__(self, name: _Optional[str] = ..., pattern: _Optional[str] = ...) -> None: ...

class ProcessRequest(_message.Message):
    __slots__ = ("tag", "entries", "count")
    TAG_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    tag: bytes
    entries: bytes
    count: int
    def __init__(self, tag: _Optional[bytes] = ..., entries: _Optional[bytes] = ..., count: _Optional[int] = ...) -> None: ...

class ProcessResponse(_message.Message):
    __slots__ = ("streams", "received", "dropped", "errors")
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    streams: _containers.RepeatedCompositeFieldContainer[Stream]
    received: int
    dropped: int
    errors: int
    def __init__(self, streams: _Optional[_Iterable[_Union[Stream, _Mapping]]] = ..., received: _Optional[int] = ..., dropped: _Optional[int] = ..., errors: _Optional[int] = ...) -> None: ...

class Stream(_message.Message):
    __slots__ = ("tag", "entries", "count", "error")
    TAG_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    tag: bytes
    entries: bytes
    count: int
    error: bool
    def __init__(self, tag: _Optional[bytes] = ..., entries: _Optional[bytes] = ..., count: _Optional[int] = ..., error: _Optional[bool] = ...) -> None: ...
