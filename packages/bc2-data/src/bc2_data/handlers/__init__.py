"""The formats of data by name, and the options that each one takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from bc2_data.errors import DataError, nearest

if TYPE_CHECKING:
    from bc2_data.handlers.base import Handler
    from bc2_data.handlers.templates import Template
    from bc2_data.tokenizer import SpecialIds

HANDLERS = ("text", "alpaca", "moss")
TemplateName = Literal["baichuan2", "ascendspeed"]
TEMPLATES: tuple[TemplateName, ...] = get_args(TemplateName)


@dataclass(frozen=True, kw_only=True)
class HandlerOptions:
    """What can be said about a handler; None means its default.

    Attributes:
        text_key: The field that holds the text; of ``text`` alone, ``text`` by default.
        template: Layout of conversations; of instruction handlers, ``baichuan2`` by default.
        append_eos: Whether every document ends with EOS; Baichuan2's own layout always does.
    """

    text_key: str | None = None
    template: TemplateName | None = None
    append_eos: bool = False


def make_handler(name: str, options: HandlerOptions, special: SpecialIds) -> Handler:
    """Returns the handler of a format.

    Args:
        name: One of `HANDLERS`.
        options: What was said about it.
        special: The tokenizer's special ids.

    Raises:
        DataError: The name is unknown, or an option does not concern this handler.
    """
    from bc2_data.handlers.alpaca import AlpacaHandler
    from bc2_data.handlers.moss import MossHandler
    from bc2_data.handlers.text import TextHandler

    if name not in HANDLERS:
        raise DataError(f"unknown handler {name!r}", nearest(name, HANDLERS))
    if name == "text":
        if options.template is not None:
            raise DataError(
                "--template is about conversations, --handler text has none",
                "leave --template out, or choose --handler alpaca or moss",
            )
        return TextHandler(options.text_key or "text", special.eos if options.append_eos else None)
    if options.text_key is not None:
        raise DataError(f"--text-key is about --handler text, not {name}", "leave --text-key out")
    template = _template(options, special)
    return AlpacaHandler(template) if name == "alpaca" else MossHandler(template)


def _template(options: HandlerOptions, special: SpecialIds) -> Template:
    from bc2_data.handlers.templates import AscendSpeedTemplate, Baichuan2Template

    if options.template == "ascendspeed":
        return AscendSpeedTemplate(special, options.append_eos)
    return Baichuan2Template(special)
