"""Plain text for pretraining: one field, as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from bc2_data.handlers.base import Kind, Sample, Text, Token, Unusable, text_field


class TextHandler:
    """Takes the text of one field, white space included.

    Args:
        key: The field.
        eos: Appended to each document; None appends nothing, as AscendSpeed does by default.
    """

    kind: ClassVar[Kind] = "pretrain"

    def __init__(self, key: str, eos: int | None) -> None:
        self.columns: tuple[str, ...] = (key,)
        self._key = key
        self._end = () if eos is None else (Token(eos, eos),)

    def render(self, fields: Mapping[str, Any]) -> Sample:
        """Returns the text, and EOS where it was asked for."""
        text = text_field(fields, self._key, "(choose the column with --text-key)")
        if not text:
            raise Unusable("no_text", f"{self._key!r} is empty")
        return (Text(text, trained=True), *self._end)
