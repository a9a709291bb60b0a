"""Plain text for pretraining: one field, as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from bc2_data.handlers.base import Kind, Sample, Text, Token, Unusable, eos_at_end, text_field
from bc2_data.handlers.options import HandlerOptions
from bc2_data.special_tokens import SpecialIds


class TextHandler:
    """Takes the text of one field, white space included.

    Args:
        key: The field.
        end: Tokens that end each document, if any; AscendSpeed has none by default.
    """

    kind: ClassVar[Kind] = "pretrain"

    def __init__(self, key: str, end: tuple[Token, ...]) -> None:
        self.columns: tuple[str, ...] = (key,)
        self._key = key
        self._end = end

    @classmethod
    def create(cls, options: HandlerOptions, special: SpecialIds) -> Self:
        """Returns the handler that the options ask for."""
        options.refuse("template", "text")
        return cls(options.text_key or "text", eos_at_end(options.append_eos, special))

    def render(self, fields: Mapping[str, Any]) -> Sample:
        """Returns the text, and EOS where it was asked for."""
        text = text_field(fields, self._key, "(choose the column with --text-key)")
        if not text:
            raise Unusable("no_text", f"{self._key!r} is empty")
        return (Text(text, trained=True), *self._end)
