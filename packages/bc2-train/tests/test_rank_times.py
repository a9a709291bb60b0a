"""How ranks tell each other how fast they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bc2_train.rank_times import INTERVAL, RankTimer, probe
from bc2_train.ranks import SingleRank


class TwoRanks(SingleRank):
    """Rank 0 of two; the other always tells the same."""

    size = 2

    def gather(self, value: Any) -> list[Any]:
        return [value, (0.5, 2.0, 1.0)]


def test_times_are_means_since_the_last_exchange() -> None:
    timer = RankTimer(TwoRanks(), torch.device("cpu"))
    for iteration in range(1, 2 * INTERVAL + 1):
        timer.add(data=float(iteration), local=1.0)
        times = timer.exchange(iteration)
        assert (times is None) == (iteration % INTERVAL != 0)
    assert times is not None
    assert times.iteration == 2 * INTERVAL
    # Those of steps 11 to 20, not of 1 to 20.
    assert times.data == [pytest.approx(15.5), 0.5]
    assert times.local == [1.0, 2.0]
    assert times.probe[1] == 1.0


def test_a_single_rank_has_nobody_to_tell() -> None:
    timer = RankTimer(SingleRank(), torch.device("cpu"))
    timer.add(data=1.0, local=1.0)
    assert timer.exchange(INTERVAL) is None


def test_the_probe_takes_some_time_and_no_random_numbers() -> None:
    state = torch.get_rng_state()
    assert 0 < probe(torch.device("cpu")) < 5
    assert torch.equal(torch.get_rng_state(), state)
