"""Where settings come from: flags, the environment, a file.

Every source is read into one flat form, so that precedence is a merge of dictionaries, and each
value keeps its origin. Libraries for settings give the merge without the origin and pass over
unknown names in the environment, which is how a misspelt variable stays without effect for months.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import yaml

from bridge.settings.catalogue import CONFIG_FLAG, CONFIG_VARIABLE, PREFIX, Setting, nearest

Path: TypeAlias = tuple[str, ...]
Names: TypeAlias = Mapping[str, Setting]

# Kubernetes gives every pod variables for each Service in its namespace; those of a Service named
# "fluent-bridge" begin as ours do. Source: Kubernetes, "Service environment variables".
_SERVICE_LINK = re.compile(
    r"FLUENT_BRIDGE(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)"
)
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


class Given(NamedTuple):
    """A value and where it came from."""

    value: Any
    origin: str


def nested(given: Mapping[Path, Given]) -> dict[str, Any]:
    """Return values by path as dictionaries in dictionaries."""
    root: dict[str, Any] = {}
    for path, each in given.items():
        place = root
        for key in path[:-1]:
            if not isinstance(place.get(key), dict):
                place[key] = {}
            place = place[key]
        if path[-1] not in place or each.value != {}:
            place[path[-1]] = each.value
    return root


def from_all(
    argv: Sequence[str], environ: Mapping[str, str], names: Names, problems: list[str]
) -> dict[Path, Given]:
    """Return what all sources set together: a flag wins over the environment, that over the file.

    Args:
        argv: as for :func:`from_flags`.
        environ: as for :func:`from_environment`.
        names: the settings there are.
        problems: what is wrong is added here, a line each.
    """
    flags, config = from_flags(argv, names, problems)
    environment, named = from_environment(environ, names, problems)
    file = config or named
    return {
        **(from_file(file, names, problems) if file else {}),
        **environment,
        **flags,
    }


def from_flags(
    argv: Sequence[str], names: Names, problems: list[str]
) -> tuple[dict[Path, Given], str]:
    """Return what flags set, and the file that ``--config`` names.

    Args:
        argv: ``--name value`` or ``--name=value``, any number of times.
        names: the settings there are.
        problems: what is wrong is added here, a line each.
    """
    given: dict[Path, Given] = {}
    config = ""
    seen = set()
    arguments = iter(argv)
    flags = {setting.flag: setting for setting in names.values()}
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if not flag.startswith("--"):
            problems.append(f"{argument!r} is not a flag; flags are written --listen.port 24224")
            continue
        if not equals:
            following = next(arguments, None)
            if following is None:
                problems.append(f"flag {flag} has no value")
                break
            value = following
        if flag in seen:
            problems.append(f"flag {flag} is given twice")
        seen.add(flag)
        if flag == CONFIG_FLAG:
            config = value
        elif flag in flags:
            given |= _from_text(flags[flag], (), value, f"flag {flag}", problems)
        else:
            problems.append(_unknown(f"flag {flag}", flag, [*flags, CONFIG_FLAG]))
    return given, config


def from_environment(
    environ: Mapping[str, str], names: Names, problems: list[str]
) -> tuple[dict[Path, Given], str]:
    """Return what the environment sets, and the file that it names.

    ``FLUENT_BRIDGE_LISTEN__USERS__alice`` sets one key of a mapping, so that a secret can be
    mounted as one variable.

    Args:
        environ: the environment; only names with our prefix are looked at.
        names: the settings there are.
        problems: what is wrong is added here, a line each.
    """
    given: dict[Path, Given] = {}
    variables = {setting.variable: setting for setting in names.values()}
    # Sorted, so that a variable for a whole mapping comes before those for its keys.
    for variable, value in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE:
            continue
        group, key, rest = [*variable.split("__", 2), "", ""][:3]
        setting = variables.get(f"{group}__{key}")
        inner = tuple(rest.split("__", max(setting.depth - 1, 0))) if setting and rest else ()
        if setting is not None and len(inner) <= setting.depth:
            origin = f"environment {variable}"
            given |= _from_text(setting, inner, value, origin, problems)
        elif not _is_service_link(variable, value):
            problems.append(
                _unknown(f"environment {variable}", variable, [*variables, CONFIG_VARIABLE])
            )
    return given, environ.get(CONFIG_VARIABLE, "")


def from_file(path: str, names: Names, problems: list[str]) -> dict[Path, Given]:
    """Return what a YAML file sets.

    Args:
        path: the file.
        names: the settings there are.
        problems: what is wrong is added here, a line each.
    """
    given: dict[Path, Given] = {}
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - messages show it as written
            loader = yaml.SafeLoader(file.read())
        root = loader.get_single_node()
        groups = dict.fromkeys(setting.path[0] for setting in names.values())
        for group, line, settings in _entries(root, path, problems):
            if group not in groups:
                problems.append(_unknown_key(path, line, group, names, *groups))
                continue
            for key, at, node in _entries(settings, path, problems):
                setting = names.get(f"{group}.{key}")
                if setting is None:
                    problems.append(_unknown_key(path, at, f"{group}.{key}", names))
                    continue
                value = loader.construct_object(node, deep=True)
                given |= _flat(setting, (), value, f"file {path}:{at}")
    except OSError as error:
        problems.append(
            f"file {path}: cannot be read: {error.strerror}; name one that is there, or leave"
            " it out"
        )
    except UnicodeDecodeError:
        problems.append(f"file {path}: is not UTF-8: save it as UTF-8")
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problems.append(f"file {path}:{line}: is not YAML: {error.problem}; correct it there")
    except yaml.YAMLError as error:
        problems.append(f"file {path}: is not YAML: {error}; correct it there")
    return given


def _entries(
    node: yaml.Node | None, path: str, problems: list[str]
) -> Iterator[tuple[str, int, yaml.Node]]:
    """Give key, line and value of what a mapping in the file holds."""
    if node is None or node.tag == "tag:yaml.org,2002:null":
        return  # an empty file, or a group with everything in it commented out
    line = node.start_mark.line + 1
    if not isinstance(node, yaml.MappingNode):
        problems.append(f"file {path}:{line}: should be names with values, as in port: 24224")
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        name = str(key.value)
        if name in seen:
            problems.append(f"file {path}:{line}: {name} stands on line {seen[name]} already")
        seen[name] = line
        yield name, line, value


def _flat(setting: Setting, keys: Path, value: Any, origin: str) -> dict[Path, Given]:
    """Return a value by path; mappings are taken apart, so that sources merge key by key."""
    path = setting.path + keys
    if len(keys) == setting.depth or not isinstance(value, dict) or not value:
        return {path: Given(value, origin)}
    flat: dict[Path, Given] = {}
    for key, each in value.items():
        flat |= _flat(setting, (*keys, str(key)), each, origin)
    return flat


def _from_text(
    setting: Setting, keys: Path, text: str, origin: str, problems: list[str]
) -> dict[Path, Given]:
    """Return what a flag or a variable sets; where a text is not enough it is read as YAML."""
    value: Any = text
    if len(keys) < setting.depth or not setting.typed:
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            problems.append(f"{origin}: is neither YAML nor JSON; it must be {setting.allowed}")
            return {}
    return _flat(setting, keys, value, origin)


def _is_service_link(variable: str, value: str) -> bool:
    if "__" in variable or not _SERVICE_LINK.fullmatch(variable):
        return False
    # FLUENT_BRIDGE_LISTEN_PORT=24224 lacks an underscore; as a service link it has an address.
    return not variable.endswith("_PORT") or bool(
        variable.endswith("_SERVICE_PORT") or _SERVICE_ADDRESS.match(value)
    )


def _unknown_key(path: str, line: int, name: str, names: Names, *groups: str) -> str:
    if name in names:
        group, key = names[name].path
        return f"file {path}:{line}: write {name} as a group: {group}, and {key} below it"
    return _unknown(f"file {path}:{line}: {name}", name, [*groups, *names])


def _unknown(what: str, name: str, known: Collection[str]) -> str:
    near = nearest(name, known)
    advice = f"did you mean {near}?" if near else "fluent-bridge settings lists them all"
    return f"{what}: there is no such setting; {advice}"
