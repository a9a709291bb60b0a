"""A tokenizer.json for fastokens, made of a SentencePiece model so that both cut text alike.

It is not for other libraries. Three liberties make it load and run much faster:

- Pieces are spelled with a space where SentencePiece has ``▁``, and no normaliser is named. Text is
  to be handed over the same way, with a space for every ``▁``: to SentencePiece they are the same.
- A user-defined piece of one character is an ordinary one that no merge touches, which comes to
  the same thing, instead of an added token that every text is searched for.
- Of two ways to write a merge, as one string or as a pair of strings, each takes the first it can.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bc2_data.engines.bpe_merges import (
    AmbiguousOrderError,
    Pair,
    last_symbols,
    ordered_merges,
)
from bc2_data.engines.sentencepiece_model import (
    Piece,
    PieceType,
    SentencePieceModel,
    read_sentencepiece_model,
)

FORMAT = 1
"""Counts up whenever the same model gives another file."""

SPACE = "▁"
"""What SentencePiece spells a space with; not to stand in the text that is encoded."""


class NoEquivalentError(Exception):
    """No tokenizer.json is known to cut text exactly as this model does; says why."""


def tokenizer_json(model_file: Path) -> str:
    """Returns the text of a tokenizer.json that gives SentencePiece's ids for every text.

    Args:
        model_file: A SentencePiece model that the sentencepiece library can load.

    Raises:
        NoEquivalentError: The model is of another kind than Baichuan2's.
    """
    model = read_sentencepiece_model(model_file)
    scores = _mergeable(model)
    reason = _unfit(model, scores)
    if reason:
        raise NoEquivalentError(reason)
    try:
        merges = ordered_merges(scores)
    except AmbiguousOrderError as error:
        raise NoEquivalentError(str(error)) from error
    names = {_name(piece, merges): token for token, piece in enumerate(model.pieces)}
    (unknown,) = (_name(p, merges) for p in model.pieces if p.type == PieceType.UNKNOWN)
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added_token(piece.text, token)
            for token, piece in enumerate(model.pieces)
            if piece.type == PieceType.USER_DEFINED and len(piece.text) > 1
        ],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": dict(sorted(names.items())),  # loads faster in this order
            "merges": [_merge(*pair) for pair in merges.values()],
        },
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _mergeable(model: SentencePieceModel) -> dict[str, float]:
    """Returns the pieces that merges may make, with their scores.

    A user-defined piece is cut out of the text before anything is merged, so no piece that has a
    user-defined character in it is ever made.
    """
    alone = {piece.text for piece in model.pieces if piece.type == PieceType.USER_DEFINED}
    return {
        piece.text: piece.score
        for piece in model.pieces
        if piece.type == PieceType.NORMAL and alone.isdisjoint(piece.text)
    }


def _name(piece: Piece, merges: Mapping[str, Pair]) -> str:
    """Returns what the vocabulary calls a piece.

    fastokens takes a text for the entry of its name even where no merges lead there. What text
    never becomes, such as ``<s>``, is therefore given a name that no text has.
    """
    made = len(piece.text) == 1 or piece.text in merges
    if piece.type in {PieceType.USER_DEFINED, PieceType.BYTE} or made:
        return _spelled(piece.text)
    return f"{SPACE}{piece.text}"


def _spelled(text: str) -> str:
    return text.replace(SPACE, " ")


def _merge(left: str, right: str) -> str | list[str]:
    if SPACE in left or SPACE in right:
        return [_spelled(left), _spelled(right)]
    return f"{left} {right}"


def _unfit(model: SentencePieceModel, scores: Mapping[str, float]) -> str | None:
    """Returns why no tokenizer.json can stand in for the model; None if one may."""
    texts = {piece.text for piece in model.pieces}
    user_defined = (p.text for p in model.pieces if p.type == PieceType.USER_DEFINED)
    names_of_bytes = (p.text for p in model.pieces if p.type == PieceType.BYTE)
    if not model.is_bpe:
        return "its algorithm is not BPE"
    if not model.keeps_text:
        return "it changes text before cutting it"
    if not model.byte_fallback:
        return "it has no pieces for single bytes"
    if len(texts) < len(model.pieces):
        return "a piece occurs twice"
    if any(piece.type == PieceType.UNUSED for piece in model.pieces):
        return "it has unused pieces"
    if any(" " in text for text in texts) or any(SPACE in text for text in user_defined):
        return "spaces in its pieces are not spelled as usual"
    if any(character not in texts for piece in scores for character in piece):
        return "a character of a piece is no piece itself"
    for name in names_of_bytes:  # fastokens would take such a text for the byte
        if not texts.issuperset(name) or len(last_symbols(name, scores)) <= 2:
            return f"the text {name} could be taken for a byte"
    return None


def _added_token(content: str, token: int) -> dict[str, Any]:
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return {"id": token, "content": content, **dict.fromkeys(flags, False)}
