"""How a conversation becomes a sample: where the roles stand and what is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Literal, Protocol

from bc2_data.errors import DataError
from bc2_data.handlers.base import Sample, Text, Token
from bc2_data.handlers.options import HandlerOptions
from bc2_data.special_tokens import SpecialIds
from bc2_data.vocab import IGNORE_INDEX

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """What one side says.

    Attributes:
        role: Who says it; ``system`` is the first message only.
        text: What is said; may be empty.
        trained: Whether it is trained; None leaves that to the layout.
    """

    role: Role
    text: str
    trained: bool | None = None


class Template(Protocol):
    """The layout of a conversation."""

    def alpaca_request(self, instruction: str, context: str) -> str:
        """Returns the user's text of an Alpaca row; `context` is its input, often empty."""

    def render(self, messages: Sequence[Message]) -> Sample:
        """Returns the sample of a conversation of at least one message."""


def make_template(options: HandlerOptions, special: SpecialIds) -> Template:
    """Returns the layout that was asked for.

    Raises:
        DataError: The tokenizer lacks the tokens of the layout.
    """
    if options.template == "ascendspeed":
        return AscendSpeedTemplate(special, options.append_eos)
    return Baichuan2Template(special)


class Baichuan2Template:
    """Baichuan2's own layout: system 195 user 196 answer 195 user ... EOS, every answer trained.

    The system's text stands in front without a token of its own. Labels are unshifted. EOS is the
    label of a user token after a trained answer, so that the answer is taught to end there, and of
    the EOS at the end. It is the label of a user token at the very beginning too, as upstream,
    where nothing predicts it. Source: the official fine-tune.py and generation_utils.py, and
    AscendSpeed's MOSSMultiTurnHandler.
    """

    def __init__(self, special: SpecialIds) -> None:
        if special.user is None or special.assistant is None:
            raise DataError(
                "the tokenizer has no <reserved_106> and <reserved_107>, which open the turns",
                "use a Baichuan2 tokenizer, or --template ascendspeed",
            )
        labels = {True: special.eos, False: IGNORE_INDEX}  # after a trained answer, and not
        self._user = {after: Token(special.user, label) for after, label in labels.items()}
        self._end = {after: Token(special.eos, label) for after, label in labels.items()}
        self._assistant = Token(special.assistant, IGNORE_INDEX)

    def alpaca_request(self, instruction: str, context: str) -> str:
        """Returns the instruction, with a newline and the input where there is one."""
        return f"{instruction}\n{context}" if context else instruction

    def render(self, messages: Sequence[Message]) -> Sample:
        """Returns the sample of a conversation."""
        sample: list[Token | Text] = []
        after_answer = True
        for message in messages:
            answers = message.role == "assistant"
            if answers:
                sample.append(self._assistant)
            elif message.role == "user":
                sample.append(self._user[after_answer])
            trained = answers if message.trained is None else message.trained
            if message.text:
                sample.append(Text(message.text, trained))
            after_answer = answers and trained
        return [*sample, self._end[after_answer]]


class AscendSpeedTemplate:
    """AscendSpeed's general instruction layout; by default the last answer alone is trained.

    Trained and untrained stretches are encoded by themselves, so no token can straddle the border
    between them. A system message takes the place of AscendSpeed's own. Source: AscendSpeed's
    GeneralInstructionHandler and AlpacaTemplate.

    Args:
        special: The tokenizer's special ids.
        append_eos: Whether EOS ends a sample, trained if the text before it is.
    """

    _SYSTEM = (
        "Below is an instruction that describes a task, paired with an input that provides "
        "further context. Write a response that appropriately completes the request. "
        "Please note that you need to think through your response logically and step by step."
    )
    _OPENING = {"user": "### Instruction:\n", "assistant": "### Response:\n"}  # noqa: RUF012

    def __init__(self, special: SpecialIds, append_eos: bool) -> None:
        self._eos = special.eos if append_eos else None

    def alpaca_request(self, instruction: str, context: str) -> str:
        """Returns the instruction, a newline and the input, even where that is empty."""
        return f"{instruction}\n{context}"

    def render(self, messages: Sequence[Message]) -> Sample:
        """Returns the sample of a conversation."""
        system = Message("system", self._SYSTEM)
        if messages[0].role == "system":
            system, *messages = messages
        stretches = [(f"\n{system.text}\n", bool(system.trained))]
        for message in messages:
            is_last_answer = message is messages[-1] and message.role == "assistant"
            trained = is_last_answer if message.trained is None else message.trained
            stretches += [(self._OPENING[message.role], False), (f"{message.text}\n", trained)]
        sample: list[Token | Text] = [
            Text("".join(text for text, _ in group), trained)
            for trained, group in groupby(stretches, key=itemgetter(1))
        ]
        if self._eos is not None:
            sample.append(Token(self._eos, self._eos if stretches[-1][1] else IGNORE_INDEX))
        return sample
