"""What happens to a special token that stands literally in a user's text.

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
from typing import Literal, get_args

from bc2_data.errors import DataError

Policy = Literal["escape", "allow", "error"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

_LITERAL = re.compile(r"<(?:reserved_[0-9]+|SEP|CLS|s|/s|unk)>")


class SpecialTokenError(DataError):
    """A special token stands literally in a text and the policy is ``error``.

    Attributes:
        literal: The special token.
        index: Which of the texts handed over holds it.
    """

    def __init__(self, literal: str, index: int) -> None:
        super().__init__(
            f"the special token {literal} stands literally in the text",
            "encode it as plain characters with --special-tokens escape",
        )
        self.literal = literal
        self.index = index


class SpecialTokenGuard:
    """Applies one policy to texts and counts the literals that it meets.

    Args:
        policy: One of `POLICIES`.
        is_special: Whether the tokenizer's vocabulary has a piece; ``<reserved_1000>`` looks like
            a special token but is none.

    Attributes:
        found: How often each literal was met, whatever the policy.
    """

    def __init__(self, policy: Policy, is_special: Callable[[str], bool]) -> None:
        self.policy = policy
        self.found: Counter[str] = Counter()
        self._is_special = is_special

    def split(self, text: str, index: int = 0) -> list[str]:
        """Returns the parts of a text that are to be encoded by themselves.

        Args:
            text: A user's text.
            index: Its place among the texts handed over, for the error.

        Raises:
            SpecialTokenError: There is a literal and the policy is ``error``.
        """
        if "<" not in text:  # nearly every text; the pattern is ten times slower
            return [text]
        parts = []
        start = 0
        for match in _LITERAL.finditer(text):
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
