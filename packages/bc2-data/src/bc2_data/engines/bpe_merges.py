"""The list of merges with which rank-ordered BPE cuts text exactly as SentencePiece does.

SentencePiece merges the adjacent pair whose concatenation is the piece of the highest score, the
leftmost of equals. tokenizer.json lists pairs by rank instead, and merges the pair of the lowest
rank, the leftmost of equals. The two agree on every text where

1. each piece has one pair in the list: the pair of its last merge when SentencePiece encodes the
   piece's own text. A stretch of text that ends up as one piece is merged as if it stood alone,
   because a merge across its ends would have prevented the piece. So no other pair is ever merged
   into that piece, and a piece that does not survive alone is never made;
2. the pairs stand in the order of their pieces' scores;
3. among different pieces of one score, no pair ends with the symbol that another begins with, and
   no pair that holds one of these pieces makes a piece of this score or a higher one. Then all
   merges of that score are made before any other, none takes away the symbols of another, and
   their order does not matter.

`ordered_merges` makes a list by 1 and 2, and refuses where 3 does not hold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from itertools import pairwise

Pair = tuple[str, str]

_NO_PIECE = float("-inf")


class AmbiguousOrderError(Exception):
    """Pieces of equal score whose merges compete, so that no list of ranks tells their order."""


def ordered_merges(scores: Mapping[str, float]) -> dict[str, Pair]:
    """Returns the pair of each piece that is ever made, in the order of their ranks.

    Args:
        scores: The pieces that merges may make, with their scores.

    Raises:
        AmbiguousOrderError: No list is exact.
    """
    merges: dict[str, Pair] = {}
    for piece in sorted(scores, key=scores.__getitem__, reverse=True):
        match last_symbols(piece, scores):
            case [left, right]:
                merges[piece] = left, right
    _refuse_competing(merges, scores)
    return merges


def last_symbols(text: str, scores: Mapping[str, float]) -> list[str]:
    """Merges the characters of a text as SentencePiece does, down to two symbols if that goes.

    Args:
        text: Without user-defined pieces in it.
        scores: The pieces that merges may make, with their scores.
    """
    symbols = list(text)
    gains = [scores.get(left + right, _NO_PIECE) for left, right in pairwise(symbols)]
    while len(gains) > 1 and (gain := max(gains)) > _NO_PIECE:
        at = gains.index(gain)  # the leftmost
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
        del gains[at]
        if at > 0:
            gains[at - 1] = scores.get(symbols[at - 1] + symbols[at], _NO_PIECE)
        if at < len(gains):
            gains[at] = scores.get(symbols[at] + symbols[at + 1], _NO_PIECE)
    return symbols


def _refuse_competing(merges: Mapping[str, Pair], scores: Mapping[str, float]) -> None:
    equals = defaultdict(list)
    for piece in merges:
        equals[scores[piece]].append(piece)
    tied = {piece for pieces in equals.values() if len(pieces) > 1 for piece in pieces}
    for piece, pair in merges.items():
        for symbol in pair:
            if symbol in tied and scores[piece] >= scores[symbol]:
                raise AmbiguousOrderError(f"{piece!r} comes before merges as early as {symbol!r}")
    for pieces in equals.values():
        _refuse_overlap(pieces, merges)


def _refuse_overlap(pieces: Collection[str], merges: Mapping[str, Pair]) -> None:
    beginning = defaultdict(set)
    for piece in pieces:
        beginning[merges[piece][0]].add(piece)
    for piece in pieces:
        for other in beginning[merges[piece][1]] - {piece}:
            raise AmbiguousOrderError(f"{piece!r} and {other!r} have one score and may overlap")
