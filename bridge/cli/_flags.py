"""A command's flags for the settings, made from the settings themselves."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from bridge.settings import CONFIG_FLAG, CONFIG_VARIABLE, Setting, Settings, catalogue


def with_settings(
    command: Callable[..., None], load: Callable[[list[str]], Any] = Settings.load
) -> Callable[..., None]:
    """Return the command with a flag for every setting, called with the settings they make.

    Args:
        command: takes :class:`Settings` first. A parameter ``folder`` is also the setting
            ``filters.path``.
        load: makes of flags what the command is called with, if not the settings alone.
    """
    settings = {_python(setting.name): setting for setting in catalogue(Settings).values()}

    def run(*, config: str | None, **parameters: Any) -> None:
        flags = {settings[name].flag: parameters.pop(name) for name in settings}
        if (folder := parameters.pop("folder", None)) is not None:
            if flags["--filters.path"] is not None:
                raise typer.BadParameter(
                    "the folder is given twice: as the argument and as --filters.path"
                )
            flags["--filters.path"] = folder
        flags[CONFIG_FLAG] = config
        argv = [f"{flag}={value}" for flag, value in flags.items() if value is not None]
        command(load(argv), **parameters)

    config_option = typer.Option(
        CONFIG_FLAG,
        metavar="FILE",
        help=f"YAML file with settings; also {CONFIG_VARIABLE}.",
        show_default=False,
    )
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    added = [
        _parameter("config", config_option),
        *(_parameter(name, _option(setting)) for name, setting in settings.items()),
    ]
    keyword = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own, *added)]
    run.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in keyword}
    run.__doc__ = command.__doc__
    return run


def _parameter(name: str, option: Any) -> inspect.Parameter:
    # Texts throughout: only the settings know the types, and they say more about a mistake.
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[str | None, option],
    )


def _option(setting: Setting) -> Any:
    group, _ = setting.path
    default = setting.text(setting.default)
    return typer.Option(
        setting.flag,
        metavar="VALUE",
        help=setting.meaning if default == "-" else f"{setting.meaning} (default: {default})",
        show_default=False,
        rich_help_panel=f"Settings: {group}",
    )


def _python(name: str) -> str:
    return name.replace(".", "__")
