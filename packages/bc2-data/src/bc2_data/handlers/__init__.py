"""The formats of data by name, ours and those that other distributions bring along.

A handler is made by a callable that takes `HandlerOptions` and the tokenizer's `SpecialIds`. A
distribution adds one by an entry point of the group ``bc2_data.handlers``, in its pyproject.toml:

    [project.entry-points."bc2_data.handlers"]
    my-format = "my_package.my_module:MyHandler.create"
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, cast

from bc2_data.errors import DataError, nearest
from bc2_data.handlers.options import TEMPLATES, HandlerOptions, TemplateName

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from bc2_data.handlers.base import Handler
    from bc2_data.special_tokens import SpecialIds

    MakeHandler = Callable[[HandlerOptions, SpecialIds], Handler]

__all__ = [
    "HANDLERS",
    "TEMPLATES",
    "HandlerOptions",
    "TemplateName",
    "handler_names",
    "make_handler",
]

_GROUP = "bc2_data.handlers"
_OURS = {
    "text": ("bc2_data.handlers.text", "TextHandler"),
    "alpaca": ("bc2_data.handlers.alpaca", "AlpacaHandler"),
    "alpaca-pretrain": ("bc2_data.handlers.alpaca_pretrain", "AlpacaPretrainHandler"),
    "moss": ("bc2_data.handlers.moss", "MossHandler"),
    "messages": ("bc2_data.handlers.messages", "MessagesHandler"),
}

HANDLERS = tuple(_OURS)
"""The names of our own handlers."""


def handler_names() -> tuple[str, ...]:
    """Returns the names of all handlers, those of other distributions included."""
    return HANDLERS + tuple(sorted({entry.name for entry in _theirs()} - _OURS.keys()))


def make_handler(name: str, options: HandlerOptions, special: SpecialIds) -> Handler:
    """Returns the handler of a format.

    Args:
        name: One of `handler_names`.
        options: What was said about it.
        special: The tokenizer's special ids.

    Raises:
        DataError: The name is unknown, the handler cannot be loaded, or an option does not concern
            it.
    """
    return _maker(name)(options, special)


def _maker(name: str) -> MakeHandler:
    if name in _OURS:
        module, handler = _OURS[name]
        return cast("MakeHandler", getattr(import_module(module), handler).create)
    found = [entry for entry in _theirs() if entry.name == name]
    if not found:
        raise DataError(f"unknown handler {name!r}", nearest(name, handler_names()))
    if len({entry.value for entry in found}) > 1:
        raise DataError(
            f"several distributions bring a handler {name!r}: {', '.join(map(_origin, found))}",
            "uninstall all but one of them",
        )
    try:
        return cast("MakeHandler", found[0].load())
    except Exception as error:  # whatever their module does
        raise DataError(
            f"handler {name!r} of {_origin(found[0])} cannot be loaded: {error}",
            "mend or reinstall that distribution",
        ) from error


def _theirs() -> tuple[EntryPoint, ...]:
    from importlib.metadata import entry_points  # a tenth of the time that `--help` may take

    return tuple(entry_points(group=_GROUP))


def _origin(entry: EntryPoint) -> str:
    return f"{entry.dist.name if entry.dist else 'an unknown distribution'} ({entry.value})"
