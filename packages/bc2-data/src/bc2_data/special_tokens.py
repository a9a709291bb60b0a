"""The tokens between texts, and what happens to such a token that stands literally in a text.

SentencePiece turns the characters ``<reserved_106>`` into the id that opens a user's turn, so text
from anywhere could play a role in a conversation. The policies:

- ``escape`` cuts the text after the literal's first character and encodes the parts by themselves,
  so the reader still sees the same characters and no special id appears;
- ``allow`` gives exactly what SentencePiece gives for the whole text;
- ``error`` stops.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from bc2_data.errors import TextError

Policy = Literal["escape", "allow", "error"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

USER = "<reserved_106>"
ASSISTANT = "<reserved_107>"
LITERALS = re.compile(r"<(?:reserved_[0-9]+|SEP|CLS|s|/s|unk)>")
"""Baichuan2's special tokens, and what looks like one: ``<reserved_1000>`` is none."""


@dataclass(frozen=True, kw_only=True)
class SpecialIds:
    """The ids that a layout puts between texts; None where the vocabulary lacks one.

    Attributes:
        bos: ``<s>``; Baichuan2 never adds it by itself.
        eos: ``</s>``, the end of a document or of an answer.
        pad: ``<unk>``, which Baichuan2 pads with.
        user: ``<reserved_106>``, which opens a user's turn.
        assistant: ``<reserved_107>``, which opens an answer.
    """

    bos: int | None
    eos: int
    pad: int | None
    user: int | None
    assistant: int | None


class SpecialTokenError(TextError):
    """A special token stands literally in a text and the policy is ``error``.

    Attributes:
        literal: The special token.
    """

    def __init__(self, literal: str, index: int) -> None:
        super().__init__(
            f"the special token {literal} stands literally in the text",
            "encode it as plain characters with --special-tokens escape",
            index,
        )
        self.literal = literal


class SpecialTokenGuard:
    """Applies one policy to texts and counts the literals that it meets.

    Args:
        policy: One of `POLICIES`.
        literals: Finds what may be a special token.
        is_special: Whether what was found is one in this vocabulary.

    Attributes:
        found: How often each literal was met, whatever the policy.
    """

    def __init__(
        self, policy: Policy, literals: re.Pattern[str], is_special: Callable[[str], bool]
    ) -> None:
        self.policy = policy
        self.found: Counter[str] = Counter()
        self._literals = literals
        self._is_special = is_special

    def split(self, text: str, index: int = 0) -> list[str]:
        """Returns the parts of a text that are to be encoded by themselves.

        Args:
            text: A user's text.
            index: Its place among the texts handed over, for the error.

        Raises:
            SpecialTokenError: There is a literal and the policy is ``error``.
        """
        parts = []
        start = 0
        for match in self._literals.finditer(text):
            literal = match.group()
            if not self._is_special(literal):
                continue
            if self.policy == "error":
                raise SpecialTokenError(literal, index)
            self.found[literal] += 1
            if self.policy == "escape":
                cut = match.start() + 1
                parts.append(text[start:cut])
                start = cut
        parts.append(text[start:])
        return parts
