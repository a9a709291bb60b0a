"""Alpaca rows: instruction, input (often empty or absent) and output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from bc2_data.handlers.base import Kind, Sample, Unusable, text_field
from bc2_data.handlers.options import HandlerOptions
from bc2_data.handlers.templates import Message, Template, make_template
from bc2_data.special_tokens import SpecialIds

COLUMNS = ("instruction", "input", "output")


class AlpacaHandler:
    """Makes a conversation of two messages of each row."""

    kind: ClassVar[Kind] = "instruction"

    def __init__(self, template: Template) -> None:
        self.columns: tuple[str, ...] = COLUMNS
        self._template = template

    @classmethod
    def create(cls, options: HandlerOptions, special: SpecialIds) -> Self:
        """Returns the handler that the options ask for."""
        options.refuse("text_key", "alpaca")
        return cls(make_template(options, special))

    def render(self, fields: Mapping[str, Any]) -> Sample:
        """Returns the sample of one request and its answer."""
        instruction, context, answer = alpaca_fields(fields)
        request = self._template.alpaca_request(instruction, context)
        return self._template.render([Message("user", request), Message("assistant", answer)])


def alpaca_fields(fields: Mapping[str, Any]) -> tuple[str, str, str]:
    """Returns a row's instruction, its input, which may be "", and its output, which is not.

    Raises:
        Unusable: A field is missing or no text, or there is no output.
    """
    instruction = text_field(fields, "instruction")
    context = text_field(fields, "input") if "input" in fields else ""
    answer = text_field(fields, "output")
    if not answer:
        raise Unusable("no_text", "'output' is empty")
    return instruction, context, answer
