"""The list of merges against both rules of merging, written out for these tests alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise, product

import pytest

from bc2_data.engines.bpe_merges import AmbiguousOrderError, Pair, ordered_merges

Rank = Callable[[str, str], float | None]


def merge(text: str, rank: Rank) -> list[str]:
    """Merges the pair of the lowest rank, the leftmost of equals, until no pair has a rank."""
    symbols = list(text)
    while True:
        ranks = [(rank(left, right), at) for at, (left, right) in enumerate(pairwise(symbols))]
        known = [(value, at) for value, at in ranks if value is not None]
        if not known:
            return symbols
        _, at = min(known)
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]


def by_score(scores: Mapping[str, float]) -> Rank:
    return lambda left, right: -scores[left + right] if left + right in scores else None


def by_list(merges: Mapping[str, Pair]) -> Rank:
    ranks = {pair: rank for rank, pair in enumerate(merges.values())}
    return lambda left, right: ranks.get((left, right))


def texts(alphabet: str, longest: int) -> Iterator[str]:
    for length in range(2, longest + 1):
        yield from map("".join, product(alphabet, repeat=length))


def vocabulary(rng: random.Random, alphabet: str) -> dict[str, float]:
    """Pieces of up to four characters; their few scores are often equal, longer is not later."""
    candidates = list(texts(alphabet, 4))
    chosen = rng.sample(candidates, rng.randint(2, min(12, len(candidates))))
    return {piece: float(-rng.randint(1, 10)) for piece in chosen}


@pytest.mark.parametrize("seed", range(4))
def test_both_rules_cut_every_text_alike(seed: int) -> None:
    rng = random.Random(seed)
    fit = refused = 0
    for _ in range(150):
        alphabet = rng.choice(["ab", "abc"])
        scores = vocabulary(rng, alphabet)
        try:
            merges = ordered_merges(scores)
        except AmbiguousOrderError:
            refused += 1
            continue
        fit += 1
        for text in texts(alphabet, {"ab": 8, "abc": 6}[alphabet]):
            assert merge(text, by_list(merges)) == merge(text, by_score(scores)), (scores, text)
    assert fit > 20
    assert refused > 20


def test_a_piece_has_the_pair_of_its_last_merge_alone() -> None:
    # the: "he" comes first, so "th" + "e" never happens.
    merges = ordered_merges({"he": -1.0, "th": -2.0, "the": -3.0})
    assert merges == {"he": ("h", "e"), "th": ("t", "h"), "the": ("t", "he")}
    assert list(merges) == ["he", "th", "the"]


def test_a_piece_that_is_never_made_has_no_pair() -> None:
    # abcd: "bc" comes first and leaves a, bc, d, which nothing joins.
    assert list(ordered_merges({"bc": -1.0, "ab": -2.0, "cd": -3.0, "abcd": -4.0})) == [
        "bc",
        "ab",
        "cd",
    ]


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        ({"ab": -1.0, "bc": -1.0}, "abcab"),  # they share the b
        ({"ab": -2.0, "cd": -2.0, "bcd": -1.0}, "abcd"),  # cd makes bcd, which takes ab's b
    ],
)
def test_competing_merges_of_one_score_are_refused(scores: dict[str, float], text: str) -> None:
    with pytest.raises(AmbiguousOrderError):
        ordered_merges(scores)
    # And rightly: whatever their order, one of the two lists cuts a text otherwise.
    pieces = [piece for piece in scores if len(piece) == 2]
    cut = merge(text, by_score(scores))
    results = []
    for order in (pieces, pieces[::-1]):
        merges: dict[str, Pair] = {"bcd": ("b", "cd")} if "bcd" in scores else {}
        merges |= {piece: (piece[0], piece[1]) for piece in order}
        results.append(merge(text, by_list(merges)) == cut)
    assert not all(results)
