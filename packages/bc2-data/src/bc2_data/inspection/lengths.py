"""How long documents are: a few figures and a histogram."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BAR_WIDTH = 40


@dataclass(frozen=True)
class Bin:
    """One bar of a histogram.

    Attributes:
        low: Fewest tokens of the documents counted here; a power of two, or 0.
        high: Most tokens of them.
        count: Documents.
        share: Documents here, relative to the largest bin.
    """

    low: int
    high: int
    count: int
    share: float


@dataclass(frozen=True)
class LengthStatistics:
    """Figures about the lengths of documents, in tokens.

    Attributes:
        summary: Minimum, median, mean, 99th percentile and maximum in one line.
        bins: Powers of two from the shortest document to the longest, ascending.
    """

    summary: str
    bins: list[Bin]

    def bars(self) -> Iterator[str]:
        """Yields the histogram as lines for a terminal."""
        names = [f"{bin_.low:,} to {bin_.high:,}" for bin_ in self.bins]
        width = max(map(len, names))
        for name, bin_ in zip(names, self.bins, strict=True):
            bar = "█" * round(bin_.share * _BAR_WIDTH) or ("▏" if bin_.count else "")
            yield f"  {name:>{width}} | {bar} {bin_.count:,}"


def length_statistics(lengths: NDArray[np.integer]) -> LengthStatistics:
    """Returns figures about lengths.

    Args:
        lengths: (documents,) tokens in each, at least one document.
    """
    low, median, high, top = np.percentile(lengths, [0, 50, 99, 100])
    summary = (
        f"tokens a document: min {low:,.0f}, median {median:,.0f}, mean {lengths.mean():,.1f}, "
        f"99 % {high:,.0f}, max {top:,.0f}"
    )
    # frexp gives the exponent e of 2^(e-1) <= length < 2^e, and 0 for a length of 0.
    exponents = np.frexp(lengths.astype(np.float64))[1]
    counts = np.bincount(exponents)
    first = int(exponents.min())
    most = counts.max()
    bins = [
        Bin(2**exponent >> 1, 2**exponent - 1, int(counts[exponent]), counts[exponent] / most)
        for exponent in range(first, len(counts))
    ]
    return LengthStatistics(summary, bins)
