"""The settings, group by group: each is written here once and nowhere else.

Flags, environment names, the file's keys, ``--help``, ``fluent-bridge settings`` and the messages
about wrong values are all made from these models.
"""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    FilePath,
    SecretStr,
    model_validator,
)

Seconds: TypeAlias = Annotated[
    float, Field(gt=0, allow_inf_nan=False, json_schema_extra={"unit": "seconds"})
]
Size: TypeAlias = Annotated[ByteSize, Field(ge=1, json_schema_extra={"unit": "bytes"})]
Port: TypeAlias = Annotated[int, Field(ge=1, le=65535)]
# 0 lets the kernel choose, which tests and several sidecars on one laptop need.
ListenPort: TypeAlias = Annotated[int, Field(ge=0, le=65535)]
Name: TypeAlias = Annotated[str, Field(min_length=1)]
# An empty secret is a mistake in a deployment, never a wish to go without one.
Secret: TypeAlias = Annotated[SecretStr, Field(min_length=1)]

MIB = 1 << 20

_LONGEST_SOCKET_PATH = 107  # unix(7): sun_path, and the zero byte that ends it


def _hostname() -> str:
    """Return a name that is not the one of the Fluentd in the same pod, which refuses its own."""
    return f"fluent-bridge-{socket.gethostname()}"


class Group(BaseModel):
    """What all groups have in common: they cannot be changed and take no unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FiltersSettings(Group):
    """The user's filters."""

    path: Path = Field(default=Path("filters"), description="folder of filter files")
    parameters: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="what filters that are classes are constructed with, by the filter's name",
    )
    payload: Literal["raw", "json"] = Field(
        default="raw",
        description="raw: a filter gets the record; json: the document that the payload key holds,"
        " which is written anew, in its shortest form, unless only predicates saw it",
    )
    payload_key: Name = Field(
        default="message",
        description="key of the record that holds the document when payload is json",
    )
    reload: bool = Field(
        default=True,
        description="load the filters anew when their files have changed; what cannot be loaded"
        " leaves those that run in charge",
    )
    reload_interval: Seconds = Field(
        default=1.0,
        description="time between looks at the files; a change counts when it has stood for one",
    )
    reload_files: Name = Field(
        default="*",
        description="names of the files in the folder whose change counts beside Python's, with *"
        " and white space between; narrow it where filters write there",
    )


class ListenSettings(Group):
    """The Forward port that Fluentd sends to."""

    enabled: bool = Field(
        default=True,
        description="take chunks over Forward and deliver downstream; false for gRPC alone",
    )
    host: Name = Field(default="127.0.0.1", description="address to listen on")
    port: ListenPort = Field(default=24224, description="port to listen on; 0 is any free one")
    hostname: Name = Field(
        default_factory=_hostname,
        description="name given in the handshake; must differ from the sender's self_hostname",
    )
    max_message_bytes: Size = Field(
        default=ByteSize(64 * MIB),
        description="largest message taken; a larger one ends its connection",
    )
    receive_timeout: Seconds = Field(
        default=60.0, description="longest that one message may take to come"
    )
    shared_key: Secret | None = Field(
        default=None, description="key that senders must know, as in Fluentd's <security>"
    )
    users: dict[str, Secret] = Field(
        default_factory=dict, description="passwords by user; senders must be one of them"
    )
    tls_cert_file: FilePath | None = Field(
        default=None, description="certificate chain in PEM; turns TLS on"
    )
    tls_key_file: FilePath | None = Field(
        default=None, description="the certificate's private key in PEM"
    )
    tls_client_ca_file: FilePath | None = Field(
        default=None,
        description="authorities in PEM that senders must have their certificate from (mutual TLS)",
    )

    @model_validator(mode="after")
    def _check(self) -> ListenSettings:
        if self.users and self.shared_key is None:
            raise ValueError(
                "listen.users needs listen.shared_key: Fluentd sends a user only with a shared key;"
                " set the key, or take the users out"
            )
        _both(
            ("listen.tls_cert_file", self.tls_cert_file), ("listen.tls_key_file", self.tls_key_file)
        )
        if self.tls_client_ca_file is not None and self.tls_cert_file is None:
            raise ValueError(
                "listen.tls_client_ca_file needs listen.tls_cert_file and listen.tls_key_file:"
                " senders can show a certificate only over TLS"
            )
        return self


class DownstreamSettings(Group):
    """Where results go: the in_forward of the Fluentd in the same pod."""

    host: Name = Field(default="127.0.0.1", description="address to deliver to")
    port: Port = Field(default=24225, description="port to deliver to")
    connections: int = Field(default=2, ge=1, le=1024, description="connections kept open")
    window: int = Field(
        default=8,
        ge=1,
        le=65536,
        description="chunks in flight on a connection, not yet acknowledged",
    )
    connect_timeout: Seconds = Field(
        default=5.0, description="longest wait for a connection and its handshake"
    )
    ack_timeout: Seconds = Field(default=60.0, description="longest wait for an acknowledgement")
    retry_min: Seconds = Field(
        default=0.1, description="wait before the first retry; doubles each time"
    )
    retry_max: Seconds = Field(default=10.0, description="longest wait between retries")
    hostname: Name = Field(
        default_factory=_hostname,
        description="name given in the handshake; must differ from the receiver's",
    )
    shared_key: Secret | None = Field(default=None, description="the receiver's shared key")
    username: Name | None = Field(default=None, description="user to log in as")
    password: Secret | None = Field(default=None, description="the user's password")
    tls: bool = Field(default=False, description="deliver over TLS")
    tls_ca_file: FilePath | None = Field(
        default=None, description="authorities in PEM to trust; without it those of the system"
    )
    tls_cert_file: FilePath | None = Field(
        default=None, description="certificate in PEM to show to the receiver (mutual TLS)"
    )
    tls_key_file: FilePath | None = Field(
        default=None, description="the certificate's private key in PEM"
    )
    tls_verify: bool = Field(default=True, description="check the receiver's certificate and name")

    @model_validator(mode="after")
    def _check(self) -> DownstreamSettings:
        _both(("downstream.username", self.username), ("downstream.password", self.password))
        if self.username is not None and self.shared_key is None:
            raise ValueError(
                "downstream.username needs downstream.shared_key: a receiver asks for a user only"
                " together with a shared key"
            )
        _both(
            ("downstream.tls_cert_file", self.tls_cert_file),
            ("downstream.tls_key_file", self.tls_key_file),
        )
        for name in ("tls_ca_file", "tls_cert_file"):
            if getattr(self, name) is not None and not self.tls:
                raise ValueError(
                    f"downstream.{name} is set, but downstream.tls is not: results would go out in"
                    " the clear; set downstream.tls to true, or take the file out"
                )
        if self.retry_min > self.retry_max:
            raise ValueError(
                f"downstream.retry_min ({self.retry_min:g} s) is over downstream.retry_max"
                f" ({self.retry_max:g} s)"
            )
        return self


class DeliverySettings(Group):
    """From a chunk's arrival to its acknowledgement."""

    patience: Seconds = Field(
        default=180.0,
        description="longest that a chunk is worked on before it is handed back; must be under the"
        " sender's ack_response_timeout, which is 190 s unless set",
    )
    recent_chunks: int = Field(
        default=65536,
        ge=1,
        le=1 << 24,
        description="acknowledged chunks remembered, not to process one twice",
    )
    window_file: Path | None = Field(
        default=None,
        description="where to keep the acknowledged chunks over a restart; beside the sender's"
        " buffer, so that what it sends again after both were restarted does not come out twice",
    )
    bytes_in_flight: Size = Field(
        default=ByteSize(256 * MIB),
        description="chunks and results held in memory; when full, nothing more is read, and"
        " gRPC callers are told to come again",
    )


class RpcSettings(Group):
    """The gRPC service that Fluentd's bridge plugins call."""

    socket: Path | None = Field(
        default=None,
        description="path of a Unix socket to listen on; whoever may enter its folder may connect",
    )
    host: Name = Field(
        default="127.0.0.1", description="address to listen on; beyond this machine only with TLS"
    )
    port: ListenPort | None = Field(
        default=None, description="TCP port to listen on; 0 is any free one"
    )
    tls_cert_file: FilePath | None = Field(
        default=None, description="certificate chain in PEM; turns TLS on for the TCP port"
    )
    tls_key_file: FilePath | None = Field(
        default=None, description="the certificate's private key in PEM"
    )
    tls_client_ca_file: FilePath | None = Field(
        default=None,
        description="authorities in PEM that callers must have their certificate from (mutual TLS)",
    )
    max_message_bytes: Size = Field(
        default=ByteSize(64 * MIB),
        description="largest request taken; plugins ask for it and cut what is larger",
    )
    max_calls: int = Field(
        default=64,
        ge=1,
        le=65536,
        description="batches worked on at once; a caller beyond them is told to come again",
    )

    @property
    def enabled(self) -> bool:
        """Whether there is anything to listen on."""
        return self.socket is not None or self.port is not None

    @model_validator(mode="after")
    def _check(self) -> RpcSettings:
        if self.socket is not None and len(bytes(self.socket)) > _LONGEST_SOCKET_PATH:
            raise ValueError(
                f"rpc.socket: {self.socket} is longer than the {_LONGEST_SOCKET_PATH} bytes that a"
                " Unix socket's path may have; choose a shorter one"
            )
        _both(("rpc.tls_cert_file", self.tls_cert_file), ("rpc.tls_key_file", self.tls_key_file))
        if self.tls_client_ca_file is not None and self.tls_cert_file is None:
            raise ValueError(
                "rpc.tls_client_ca_file needs rpc.tls_cert_file and rpc.tls_key_file:"
                " callers can show a certificate only over TLS"
            )
        if self.port is None:
            if self.tls_cert_file is not None:
                raise ValueError(
                    "rpc.tls_cert_file is for rpc.port, which is not set: a Unix socket has no TLS;"
                    " set the port, or take the files out"
                )
        elif self.tls_cert_file is None and not _loopback(self.host):
            raise ValueError(
                f"rpc.host ({self.host}) is reached from other machines, and without TLS whoever"
                " reaches it reads and writes events in the clear: set rpc.tls_cert_file and"
                " rpc.tls_key_file, or use rpc.socket or 127.0.0.1"
            )
        return self


class WorkersSettings(Group):
    """The processes that run the filters."""

    count: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="worker processes; 0 is as many as the CPU quota allows",
    )
    deadline: Seconds = Field(
        default=15.0,
        description="longest that a worker may take for a chunk before it is replaced; an event"
        " that never returns takes it three times: keep it under a third of the plugin's timeout",
    )
    start_timeout: Seconds = Field(
        default=60.0, description="longest that a worker may take to load the filters"
    )
    max_decompressed_bytes: Size = Field(
        default=ByteSize(256 * MIB),
        description="largest that a compressed chunk may become, as in Fluentd's in_forward",
    )
    memory_limit: Size | None = Field(
        default=None,
        description="most memory that a worker may hold; one that holds more is replaced, and an"
        " event that alone takes more goes to the error stream. In a pod choose it such that all of"
        " them fit into the container, with room for what a fast one takes in the 50 ms until it is"
        " seen, 100 MiB and more: the kernel may end the container whole",
    )


class AdminSettings(Group):
    """The HTTP port for health and metrics."""

    host: Name = Field(
        default="127.0.0.1", description="address to listen on; 0.0.0.0 for probes of a pod"
    )
    port: ListenPort = Field(default=24280, description="port to listen on; 0 is any free one")
    tap: Literal["nobody", "local", "everyone"] = Field(
        default="local",
        description="who may look at events with `fluent-bridge tap`; local: who comes from this"
        " host or pod, as through kubectl port-forward; behind a proxy in the same pod, nobody",
    )


class LogSettings(Group):
    """The log on stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least severe line that is written"
    )
    format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto is console on a terminal, else json"
    )


class ShutdownSettings(Group):
    """The end."""

    grace: Seconds = Field(
        default=25.0,
        description="time to finish or hand back what is in flight after SIGTERM; must be under"
        " Kubernetes' terminationGracePeriodSeconds, which is 30 s unless set",
    )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _both(one: tuple[str, object], other: tuple[str, object]) -> None:
    for (name, value), (partner, its_value) in ((one, other), (other, one)):
        if value is not None and its_value is None:
            raise ValueError(f"{name} is set, but {partner} is not: they go together")
