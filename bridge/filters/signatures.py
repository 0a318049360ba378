"""What a function takes, from the annotation of its first parameter."""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from bridge.events import Event

Kind = Literal["record", "event", "view"]

_RECORDS = (dict, Mapping, MutableMapping, Any, object, inspect.Parameter.empty)
_WHAT_MAY_BE = (
    "annotate it with dict (the record), bridge.Event, or a msgspec.Struct, dataclass or TypedDict"
    " (a view of the record)"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Signature:
    """How to call a filter.

    Attributes:
        kind: what it takes.
        view: the type of its view, if it takes one.
        predicate: whether it is declared to return bool.
        asynchronous: whether it is to be awaited.
    """

    kind: Kind
    view: Any
    predicate: bool
    asynchronous: bool


def signature_of(function: Callable[..., Any], *, batch: bool, method: bool) -> Signature:
    """Return how to call a function.

    Args:
        function: the function, or the ``__call__`` of a class.
        batch: whether it takes all events of a chunk.
        method: whether its first parameter is self.

    Raises:
        TypeError: it cannot be called with one argument, or its annotation cannot be used.
    """
    if inspect.isasyncgenfunction(function):
        raise TypeError(
            "it is an async generator: make it an async def that returns a list of events"
        )
    if batch and inspect.isgeneratorfunction(function):
        raise TypeError(
            "it is a generator: @bridge.batch wants a list, one result an event, returned"
        )
    try:
        signature = inspect.signature(function)
    except NameError as error:  # annotations are evaluated lazily from Python 3.14 on
        raise TypeError(_unresolved(error)) from error
    arguments = (None, None) if method else (None,)
    parameters = list(signature.parameters.values())
    try:
        signature.bind(*arguments)
    except TypeError:
        takes = ", ".join(str(parameter).partition(":")[0] for parameter in parameters)
        wanted = "(self, events)" if method else "(events)"
        wanted = wanted if batch else wanted.replace("events", "record")
        raise TypeError(
            f"it takes ({takes}), but is called with one argument: make it {wanted}; what else it"
            " needs belongs into a class with __init__"
        ) from None
    index = len(arguments) - 1
    parameter = parameters[min(index, len(parameters) - 1)]  # the last one is *args then
    annotation = _evaluate(parameter.annotation, function)
    name = parameter.name
    if batch:
        annotation = _item_of(annotation, name, function)
    kind, view = _kind_of(annotation, name, batch=batch)
    returns = signature.return_annotation
    return Signature(
        kind,
        view,
        predicate=returns in ((list[bool], "list[bool]") if batch else (bool, "bool")),
        asynchronous=inspect.iscoroutinefunction(function),
    )


def _evaluate(annotation: Any, function: Callable[..., Any]) -> Any:
    if isinstance(annotation, typing.ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        # What only annotations use often stands under TYPE_CHECKING; the usual names need no
        # import.
        usual = {**vars(typing), **vars(collections.abc), "Event": Event}
        names = {**usual, **getattr(inspect.unwrap(function), "__globals__", {})}
        try:
            annotation = eval(annotation, names)  # noqa: S307 - the user's own annotation
        except Exception as error:
            raise TypeError(_unresolved(error)) from error
    while True:
        if typing.get_origin(annotation) is Annotated:
            annotation = annotation.__origin__
        elif type(annotation).__name__ == "TypeAliasType":  # "type X = ...", from Python 3.12 on
            annotation = annotation.__value__
        else:
            return annotation


def _unresolved(error: Exception) -> str:
    return (
        f"the annotation of its first parameter cannot be resolved: {error}; define that before the"
        " function, and import it outside of `if TYPE_CHECKING:`"
    )


def _item_of(annotation: Any, name: str, function: Callable[..., Any]) -> Any:
    if annotation in {list, Sequence, Any, inspect.Parameter.empty}:
        return dict
    if typing.get_origin(annotation) in {list, Sequence}:
        return _evaluate(typing.get_args(annotation)[0], function)
    raise TypeError(
        f"its parameter {name!r} is annotated {_shown(annotation)}: @bridge.batch gives a list,"
        " annotate it list[dict], list[bridge.Event] or a list of views"
    )


def _kind_of(annotation: Any, name: str, *, batch: bool) -> tuple[Kind, Any]:
    origin = typing.get_origin(annotation) or annotation
    if any(origin is one for one in _RECORDS):
        return "record", None
    if origin is Event:
        return "event", None
    if not batch and origin in {list, Sequence}:
        raise TypeError(
            f"its parameter {name!r} is annotated {_shown(annotation)}: a filter gets one event;"
            " @bridge.batch gives all of a chunk"
        )
    if not isinstance(origin, type) or not (
        issubclass(origin, msgspec.Struct)
        or dataclasses.is_dataclass(origin)
        or typing.is_typeddict(origin)
    ):
        raise TypeError(
            f"its parameter {name!r} is annotated {_shown(annotation)}, which is nothing that an"
            f" event can be given as: {_WHAT_MAY_BE}"
        )
    try:
        info = msgspec.inspect.type_info(annotation)
        unsupported = _unsupported(info, set())
    except (TypeError, NameError, AttributeError) as error:
        raise TypeError(f"the view {_shown(annotation)} cannot be decoded: {error}") from error
    if unsupported is not None:
        raise TypeError(
            f"the view {_shown(annotation)} has a field of type {_shown(unsupported)}, which"
            " msgspec cannot decode: use a built-in type, a Struct, a dataclass or a TypedDict"
        )
    if getattr(info, "array_like", False):
        raise TypeError(
            f"the view {_shown(annotation)} is array_like, but a record is a map: remove array_like"
        )
    return "view", annotation


def _unsupported(node: Any, seen: set[int]) -> Any:
    """Return the first type below a node of msgspec.inspect that msgspec does not know."""
    if isinstance(node, msgspec.inspect.CustomType):
        return node.cls
    if isinstance(node, tuple):
        below = node
    elif isinstance(node, msgspec.inspect.Type | msgspec.inspect.Field) and id(node) not in seen:
        seen.add(id(node))
        below = msgspec.structs.astuple(node)
    else:
        return None
    for one in below:
        if (unsupported := _unsupported(one, seen)) is not None:
            return unsupported
    return None


def _shown(annotation: Any) -> str:
    return (
        annotation.__qualname__
        if type(annotation) is type
        else inspect.formatannotation(annotation)
    )
