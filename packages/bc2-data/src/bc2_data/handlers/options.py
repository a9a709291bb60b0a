"""What can be said about a handler, whichever it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from bc2_data.errors import DataError

TemplateName = Literal["baichuan2", "ascendspeed"]
TEMPLATES: tuple[TemplateName, ...] = get_args(TemplateName)

OptionName = Literal["text_key", "template"]
_ABOUT: dict[OptionName, str] = {
    "text_key": "--text-key is about --handler text",
    "template": "--template is about conversations",
}


@dataclass(frozen=True, kw_only=True)
class HandlerOptions:
    """What was said about a handler; None means its default.

    Attributes:
        text_key: The field that holds the text; of ``text`` alone, ``text`` by default.
        template: Layout of conversations; of instruction handlers, ``baichuan2`` by default.
        append_eos: Whether every document ends with EOS; Baichuan2's own layout always does.
    """

    text_key: str | None = None
    template: TemplateName | None = None
    append_eos: bool = False

    def refuse(self, option: OptionName, handler: str) -> None:
        """Raises where an option was given that a handler has no use for.

        Raises:
            DataError: Says what the option is about.
        """
        if getattr(self, option) is not None:
            name = f"--{option.replace('_', '-')}"
            raise DataError(f"{_ABOUT[option]}, not --handler {handler}", f"leave {name} out")
