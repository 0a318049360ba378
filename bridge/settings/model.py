"""All settings together: loaded from every source, checked, and able to say where from."""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ByteSize, PrivateAttr, ValidationError, model_validator
from pydantic_core import ErrorDetails

from bridge.errors import SettingsError
from bridge.settings import groups
from bridge.settings.catalogue import Setting, catalogue
from bridge.settings.sources import Given, Path, from_all, nested

_MASK = "**********"
# filters.parameters are the user's own: what its names call secret is not shown either.
_SECRET_NAME = re.compile(r"passw|secret|token|api_?key|private|credential", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Shown:
    """A setting and its value, fit to be shown: secrets are masked.

    Attributes:
        setting: name, meaning, unit, default and what is allowed.
        value: the value as plain data, as JSON has it.
        origin: where the value came from.
    """

    setting: Setting
    value: Any
    origin: str

    @property
    def masked(self) -> bool:
        """Return whether the value, or a part of it, is not shown."""
        return _MASK in str(self.value)


class Settings(groups.Group):
    """All settings. Use :meth:`load` for what flags, environment and file say."""

    filters: groups.FiltersSettings = groups.FiltersSettings()
    listen: groups.ListenSettings = groups.ListenSettings()
    downstream: groups.DownstreamSettings = groups.DownstreamSettings()
    rpc: groups.RpcSettings = groups.RpcSettings()
    delivery: groups.DeliverySettings = groups.DeliverySettings()
    workers: groups.WorkersSettings = groups.WorkersSettings()
    admin: groups.AdminSettings = groups.AdminSettings()
    log: groups.LogSettings = groups.LogSettings()
    shutdown: groups.ShutdownSettings = groups.ShutdownSettings()

    _given: dict[Path, Given] = PrivateAttr(default_factory=dict)

    @classmethod
    def load(
        cls, argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None
    ) -> Settings:
        """Return the settings that the sources make together.

        A flag wins over the environment, that over the file, and that over the default. The file
        is named by ``--config`` or ``FLUENT_BRIDGE_CONFIG``. Settings that are mappings are merged
        key by key.

        Args:
            argv: flags, as in ``["--listen.port", "24224"]``; by default the process's.
            environ: the environment; by default the process's.

        Raises:
            SettingsError: a source names what does not exist or gives a value that cannot be
                used; the message has a line for each such mistake.
        """
        names = catalogue(cls)
        problems: list[str] = []
        given = from_all(
            sys.argv[1:] if argv is None else argv,
            os.environ if environ is None else environ,
            names,
            problems,
        )
        settings = cls()
        try:
            settings = cls.model_validate(nested(given))
        except ValidationError as error:
            problems += [
                _describe(each, given, names)
                for each in error.errors(include_url=False, include_context=False)
            ]
        if problems:
            raise SettingsError("\n".join(problems))
        settings._given.update(given)  # noqa: SLF001 - its own
        return settings

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if self.rpc.enabled:
            self._check_rpc()
        elif not self.listen.enabled:
            raise ValueError(
                "listen.enabled is false, and neither rpc.socket nor rpc.port is set: no event"
                " would ever come in; set one of them"
            )
        if self.listen.enabled:
            self._check_forward()
        return self

    def _check_rpc(self) -> None:
        self._check_room("rpc.max_message_bytes", self.rpc.max_message_bytes)
        if not self.rpc.port:
            return
        for name, host, port in (
            ("admin.port", self.admin.host, self.admin.port),
            ("listen.port", self.listen.host, self.listen.port if self.listen.enabled else 0),
        ):
            if (self.rpc.host, self.rpc.port) == (host, port):
                raise ValueError(f"{name} and rpc.port are both {port}: give each its own")

    def _check_forward(self) -> None:
        self._check_room("listen.max_message_bytes", self.listen.max_message_bytes)
        for name, seconds in (
            ("workers.deadline", self.workers.deadline),
            ("downstream.ack_timeout", self.downstream.ack_timeout),
        ):
            if seconds > self.delivery.patience:
                raise ValueError(
                    f"{name} ({seconds:g} s) is over delivery.patience"
                    f" ({self.delivery.patience:g} s): chunks would be handed back before it is"
                    " over; lower it, or raise the patience and the sender's ack_response_timeout"
                )
        listen, downstream = self.listen, self.downstream
        if (listen.host, listen.port) == (downstream.host, downstream.port):
            raise ValueError(
                f"downstream.host and downstream.port ({downstream.host}:{downstream.port}) are"
                " listen.host and listen.port: results would come back in for ever"
            )
        if listen.port and (listen.host, listen.port) == (self.admin.host, self.admin.port):
            raise ValueError(
                f"admin.port and listen.port are both {listen.port}: give each its own"
            )

    def _check_room(self, name: str, largest: ByteSize) -> None:
        room = self.delivery.bytes_in_flight
        if largest > room:
            raise ValueError(
                f"{name} ({largest.human_readable()}) is over delivery.bytes_in_flight"
                f" ({room.human_readable()}): the largest message would never find room"
            )

    def origins(self) -> dict[str, str]:
        """Return where each setting's value came from, by the setting's dotted name.

        An origin is ``flag --x``, ``environment X``, ``file path:line`` or ``default``; a mapping
        that several sources filled has them all, with commas between.
        """
        return {name: _origin(self._given, setting.path) for name, setting in self._catalogue()}

    def show(self) -> list[Shown]:
        """Return every setting with its value and origin, fit to be shown."""
        values = self.model_dump(mode="json")
        origins = self.origins()
        return [
            Shown(setting, _masked(values[setting.path[0]][setting.path[1]]), origins[name])
            for name, setting in self._catalogue()
        ]

    @classmethod
    def _catalogue(cls) -> Iterator[tuple[str, Setting]]:
        return iter(catalogue(cls).items())


def _origin(given: Mapping[Path, Given], path: Path) -> str:
    found = [each.origin for key, each in given.items() if key[: len(path)] == path]
    return ", ".join(dict.fromkeys(found)) or "default"


def _masked(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {
        key: _MASK if _SECRET_NAME.search(key) and isinstance(each, str) else _masked(each)
        for key, each in value.items()
    }


def _describe(
    error: ErrorDetails, given: Mapping[Path, Given], names: Mapping[str, Setting]
) -> str:
    """Return what pydantic found: the setting, the source, the value and what is allowed."""
    location = tuple(str(part) for part in error["loc"])
    setting = names.get(".".join(location[:2]))
    if setting is None:
        message = error["msg"].removeprefix("Value error, ")
        mentioned = [names[name] for name in re.findall(r"\w+\.\w+", message) if name in names]
        origins = {each.name: _origin(given, each.path) for each in mentioned}
        sources = "; ".join(f"{name}: {origin}" for name, origin in origins.items())
        return f"{message} ({sources})"
    # "[key]" stands at the end of the location of a mapping's wrong key.
    name = ".".join(part for part in location if part != "[key]")
    paths = (location[:length] for length in itertools.count(len(location), -1))
    origin = next((given[path].origin for path in paths if not path or path in given), "default")
    value = "the value (not shown, it is a secret)" if setting.secret else repr(error["input"])
    return f"{name}: {value} from {origin} cannot be used: it must be {setting.allowed}"
