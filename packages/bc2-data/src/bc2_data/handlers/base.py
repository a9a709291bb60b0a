"""What a handler makes of a row: texts and the tokens between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from bc2_data.errors import nearest
from bc2_data.special_tokens import SpecialIds

Kind = Literal["pretrain", "instruction"]
Reason = Literal["no_text", "nothing_trained", "bad_row"]


@dataclass(frozen=True, slots=True)
class Token:
    """One token that a layout puts between texts.

    Attributes:
        id: The token.
        label: What the position before it is trained to predict; unshifted, -100 for nothing.
    """

    id: int
    label: int


@dataclass(frozen=True, slots=True)
class Text:
    """A text that is encoded by itself.

    Attributes:
        text: Not empty.
        trained: Whether its tokens are their own labels; otherwise their labels are -100.
    """

    text: str
    trained: bool


Sample = Sequence[Token | Text]


class Unusable(Exception):  # noqa: N818 - it drops a row, it is no error of the run
    """A row that gives no sample.

    Attributes:
        reason: The count that the row adds to.
        why: What is wrong with the row.
        hint: What the user may do about it.
    """

    def __init__(self, reason: Reason, why: str, hint: str = "") -> None:
        super().__init__(why)
        self.reason = reason
        self.why = why
        self.hint = hint


class Handler(Protocol):
    """Turns rows of one format into samples.

    Attributes:
        kind: ``pretrain`` gives one dataset of tokens, ``instruction`` has labels besides.
        columns: The fields that `render` looks at.
    """

    kind: ClassVar[Kind]
    columns: tuple[str, ...]

    def render(self, fields: Mapping[str, Any]) -> Sample:
        """Returns one row's sample.

        Raises:
            Unusable: The row has no text, or is not of the handler's format.
        """


def eos_at_end(append_eos: bool, special: SpecialIds) -> tuple[Token, ...]:
    """Returns what ``--append-eos`` puts at the end of a document."""
    return (Token(special.eos, special.eos),) if append_eos else ()


def text_field(fields: Mapping[str, Any], name: str, hint: str = "") -> str:
    """Returns a field of text, "" where it is null.

    Args:
        fields: A row, or an object in it.
        name: The field.
        hint: What to do where there is no such field, besides the nearest name.

    Raises:
        Unusable: There is no such field, or it does not hold text.
    """
    if name not in fields:
        near = nearest(name, fields) if fields else "the row has no fields"
        raise Unusable("bad_row", f"no column {name!r}", f"{near} {hint}".strip())
    value = fields[name]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unusable("bad_row", f"{name!r} holds {type(value).__name__}, not text")
    if not value.isascii() and not _is_unicode(value):
        raise Unusable("bad_row", f"{name!r} holds a lone surrogate, which is no Unicode text")
    return value


def _is_unicode(text: str) -> bool:
    """Tells whether a text has no lone surrogates, which JSON can spell but UTF-8 cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
