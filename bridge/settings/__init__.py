"""Settings: from flags, environment and a file, each written once (see :mod:`.groups`)."""

from bridge.settings.catalogue import CONFIG_FLAG, CONFIG_VARIABLE, Setting, catalogue
from bridge.settings.groups import (
    AdminSettings,
    DeliverySettings,
    DownstreamSettings,
    FiltersSettings,
    ListenSettings,
    LogSettings,
    RpcSettings,
    ShutdownSettings,
    WorkersSettings,
)
from bridge.settings.model import Settings, Shown

__all__ = [
    "CONFIG_FLAG",
    "CONFIG_VARIABLE",
    "AdminSettings",
    "DeliverySettings",
    "DownstreamSettings",
    "FiltersSettings",
    "ListenSettings",
    "LogSettings",
    "RpcSettings",
    "Setting",
    "Settings",
    "Shown",
    "ShutdownSettings",
    "WorkersSettings",
    "catalogue",
]
