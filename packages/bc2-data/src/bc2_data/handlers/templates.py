"""How a conversation becomes a sample: where the roles stand and what is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from bc2_data.errors import DataError
from bc2_data.handlers.base import Sample, Text, Token
from bc2_data.tokenizer import SpecialIds
from bc2_data.vocab import IGNORE_INDEX


@dataclass(frozen=True, slots=True)
class Message:
    """What one side says.

    Attributes:
        role: Who says it.
        text: What is said; may be empty.
    """

    role: Literal["user", "assistant"]
    text: str


class Template(Protocol):
    """The layout of a conversation."""

    def alpaca_request(self, instruction: str, context: str) -> str:
        """Returns the user's text of an Alpaca row; `context` is its input, often empty."""

    def render(self, messages: Sequence[Message]) -> Sample:
        """Returns the sample of a conversation, which ends with the assistant."""


class Baichuan2Template:
    """Baichuan2's own layout: 195 user's text 196 answer ... EOS, every answer trained.

    Labels are unshifted. EOS is the label of each user token, so that an answer is taught to end
    where the user's next turn begins, and of the EOS at the end. Source: the official fine-tune.py
    and AscendSpeed's MOSSMultiTurnHandler.
    """

    def __init__(self, special: SpecialIds) -> None:
        if special.user is None or special.assistant is None:
            raise DataError(
                "the tokenizer has no <reserved_106> and <reserved_107>, which open the turns",
                "use a Baichuan2 tokenizer, or --template ascendspeed",
            )
        self._opening = {
            "user": Token(special.user, special.eos),
            "assistant": Token(special.assistant, IGNORE_INDEX),
        }
        self._end = Token(special.eos, special.eos)

    def alpaca_request(self, instruction: str, context: str) -> str:
        """Returns the instruction, with a newline and the input where there is one."""
        return f"{instruction}\n{context}" if context else instruction

    def render(self, messages: Sequence[Message]) -> Sample:
        """Returns the sample of a conversation."""
        sample: list[Token | Text] = []
        for message in messages:
            sample.append(self._opening[message.role])
            if message.text:
                sample.append(Text(message.text, trained=message.role == "assistant"))
        return [*sample, self._end]


class AscendSpeedTemplate:
    """AscendSpeed's general instruction layout; only the last answer is trained.

    The prompt and the answer are encoded by themselves, so no token can straddle the border
    between untrained and trained text. Source: AscendSpeed's GeneralInstructionHandler and
    AlpacaTemplate.

    Args:
        special: The tokenizer's special ids.
        append_eos: Whether EOS ends a sample, trained.
    """

    _SYSTEM = (
        "Below is an instruction that describes a task, paired with an input that provides "
        "further context. Write a response that appropriately completes the request. "
        "Please note that you need to think through your response logically and step by step."
    )
    _ROLES = {"user": "### Instruction:", "assistant": "### Response:"}  # noqa: RUF012

    def __init__(self, special: SpecialIds, append_eos: bool) -> None:
        self._end = [Token(special.eos, special.eos)] if append_eos else []

    def alpaca_request(self, instruction: str, context: str) -> str:
        """Returns the instruction, a newline and the input, even where that is empty."""
        return f"{instruction}\n{context}"

    def render(self, messages: Sequence[Message]) -> Sample:
        """Returns the sample of a conversation."""
        *before, answer = messages
        turns = "".join(f"{self._ROLES[turn.role]}\n{turn.text}\n" for turn in before)
        prompt = f"\n{self._SYSTEM}\n{turns}{self._ROLES[answer.role]}\n"
        return [Text(prompt, trained=False), Text(f"{answer.text}\n", trained=True), *self._end]
