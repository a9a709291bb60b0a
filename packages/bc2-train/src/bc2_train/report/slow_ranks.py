"""Which ranks the others wait for."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bc2_train.metrics.records import RankTimes

SLOWER = 1.25
"""A rank is slow where it takes this many times what the others take."""

_MOSTLY = 0.75
"""Share of the exchanges in which it must be: a moment's disturbance makes no rank slow."""

_LEAST_SHARE = 0.05  # of a step's time that must be lost before reading or computing is called slow


@dataclass(frozen=True, kw_only=True)
class SlowRank:
    """A rank that takes longer than the others.

    Attributes:
        rank: Which.
        over: What it takes long over.
        seconds: Its median over the exchanges of the run.
        usual: That of the middle rank, of two the faster one.
    """

    rank: int
    over: str
    seconds: float
    usual: float


def slow_ranks(times: Sequence[RankTimes], step_time: float) -> list[SlowRank]:
    """Returns the slow ranks, slowest first.

    Args:
        times: What the ranks told each other.
        step_time: Mean seconds of a step.
    """
    if not times:
        return []
    now = [each for each in times if len(each.probe) == len(times[-1].probe)]
    least = _LEAST_SHARE * step_time
    found = [
        *_slow(now, "reading data", lambda each: each.data, least),
        *_slow(now, "computing, before it waits for others", lambda each: each.local, least),
        *_slow(now, "a small computation of its own", lambda each: each.probe, 0.0),
    ]
    return sorted(found, key=lambda slow: slow.usual / slow.seconds)


def _slow(
    times: Sequence[RankTimes], over: str, of: Callable[[RankTimes], list[float]], least: float
) -> list[SlowRank]:
    exchanges = [of(each) for each in times]
    if not all(math.isfinite(seconds) for ranks in exchanges for seconds in ranks):
        return []
    usual = [statistics.median_low(ranks) for ranks in exchanges]
    found = []
    for rank, own in enumerate(zip(*exchanges, strict=True)):
        pairs = list(zip(own, usual, strict=True))
        late = sum(mine > SLOWER * theirs and mine - theirs > least for mine, theirs in pairs)
        if late >= _MOSTLY * len(pairs):
            medians = statistics.median(own), statistics.median(usual)
            found.append(SlowRank(rank=rank, over=over, seconds=medians[0], usual=medians[1]))
    return found
