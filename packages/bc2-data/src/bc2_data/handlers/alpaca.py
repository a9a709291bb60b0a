"""Alpaca rows: instruction, input (often empty or absent) and output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from bc2_data.handlers.base import Kind, Sample, Unusable, text_field
from bc2_data.handlers.templates import Message, Template


class AlpacaHandler:
    """Makes a conversation of two messages of each row."""

    kind: ClassVar[Kind] = "instruction"

    def __init__(self, template: Template) -> None:
        self.columns: tuple[str, ...] = ("instruction", "input", "output")
        self._template = template

    def render(self, fields: Mapping[str, Any]) -> Sample:
        """Returns the sample of one request and its answer."""
        instruction = text_field(fields, "instruction")
        context = text_field(fields, "input") if "input" in fields else ""
        answer = text_field(fields, "output")
        if not answer:
            raise Unusable("no_text", "'output' is empty")
        request = self._template.alpaca_request(instruction, context)
        return self._template.render([Message("user", request), Message("assistant", answer)])
