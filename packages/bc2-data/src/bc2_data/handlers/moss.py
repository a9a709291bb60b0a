"""MOSS conversations: ``{"chat": {"turn_1": {"Human": ..., "MOSS": ...}, ...}}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from bc2_data.handlers.base import Kind, Sample, Unusable, text_field
from bc2_data.handlers.options import HandlerOptions
from bc2_data.handlers.templates import Message, Template, make_template
from bc2_data.special_tokens import SpecialIds


class MossHandler:
    """Takes what the human and MOSS say; thoughts, commands and tool results are left out.

    The marks ``<|Human|>: ``, ``<eoh>``, ``<|MOSS|>:`` and ``<eom>`` and the white space around a
    message go. Source: AscendSpeed's MOSSMultiTurnHandler.
    """

    kind: ClassVar[Kind] = "instruction"

    def __init__(self, template: Template) -> None:
        self.columns: tuple[str, ...] = ("chat",)
        self._template = template

    @classmethod
    def create(cls, options: HandlerOptions, special: SpecialIds) -> Self:
        """Returns the handler that the options ask for."""
        options.refuse("text_key", "moss")
        return cls(make_template(options, special))

    def render(self, fields: Mapping[str, Any]) -> Sample:
        """Returns the sample of a whole conversation."""
        if "chat" not in fields:
            text_field(fields, "chat")  # raises, naming the nearest field
        chat = fields["chat"]
        if not isinstance(chat, Mapping):
            raise Unusable("bad_row", f"'chat' holds {type(chat).__name__}, not an object of turns")
        messages = []
        for name, turn in chat.items():
            if not turn:
                continue
            if not isinstance(turn, Mapping):
                raise Unusable("bad_row", f"{name!r} holds {type(turn).__name__}, not an object")
            human = text_field(turn, "Human").replace("<eoh>", "").replace("<|Human|>: ", "")
            moss = text_field(turn, "MOSS").replace("<|MOSS|>:", "").replace("<eom>", "")
            messages.append(Message("user", human.strip()))
            messages.append(Message("assistant", moss.strip()))
        if not any(message.text for message in messages if message.role == "assistant"):
            raise Unusable("no_text", "MOSS says nothing")
        return self._template.render(messages)
