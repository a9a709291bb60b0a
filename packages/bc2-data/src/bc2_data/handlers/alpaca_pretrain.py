"""Alpaca rows for pretraining: each becomes one text, trained from end to end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from bc2_data.handlers.alpaca import COLUMNS, alpaca_fields
from bc2_data.handlers.base import Kind, Sample, Text, Token, eos_at_end
from bc2_data.handlers.options import HandlerOptions
from bc2_data.special_tokens import SpecialIds

_OPENING = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
    "USER: Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
)


class AlpacaPretrainHandler:
    """Writes request and answer as AscendSpeed's AlpacaPretrainHandler does.

    With one exception: for a row without input AscendSpeed writes ``###None``, we write nothing.

    Args:
        end: Tokens that end each document, if any.
    """

    kind: ClassVar[Kind] = "pretrain"

    def __init__(self, end: tuple[Token, ...]) -> None:
        self.columns: tuple[str, ...] = COLUMNS
        self._end = end

    @classmethod
    def create(cls, options: HandlerOptions, special: SpecialIds) -> Self:
        """Returns the handler that the options ask for."""
        options.refuse("text_key", "alpaca-pretrain")
        options.refuse("template", "alpaca-pretrain")
        return cls(eos_at_end(options.append_eos, special))

    def render(self, fields: Mapping[str, Any]) -> Sample:
        """Returns the text of one request and its answer, and EOS where it was asked for."""
        instruction, context, answer = alpaca_fields(fields)
        given = f"### Input:\n{context}\n\n" if context else ""
        text = (
            f"{_OPENING}### Instruction:\n{instruction}\n\n{given}### Response: ASSISTANT: {answer}"
        )
        return (Text(text, trained=True), *self._end)
