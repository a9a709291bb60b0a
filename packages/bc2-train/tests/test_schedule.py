"""The learning rate at the corners of each schedule."""

from __future__ import annotations

import pytest

from bc2_train.config import Optimizer
from bc2_train.schedule import learning_rate


def rates(schedule: str, iterations: int = 10, **settings: float) -> list[float]:
    optimizer = Optimizer(lr=1.0, schedule=schedule, **settings)  # type: ignore[arg-type]
    return [learning_rate(optimizer, i, iterations) for i in range(1, iterations + 1)]


def test_constant() -> None:
    assert rates("constant") == [1.0] * 10


def test_warm_up_reaches_the_full_rate() -> None:
    assert rates("constant", warmup=4)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_linear_ends_at_the_smallest_rate() -> None:
    assert rates("linear", min_lr=0.1, warmup=2)[1] == 1.0
    assert rates("linear", min_lr=0.1, warmup=2)[-1] == pytest.approx(0.1)
    assert rates("linear")[4] == pytest.approx(0.5)


def test_cosine_is_at_half_in_the_middle() -> None:
    assert rates("cosine", min_lr=0.2)[4] == pytest.approx(0.6)
    assert rates("cosine", min_lr=0.2)[-1] == pytest.approx(0.2)


def test_a_run_that_is_all_warm_up() -> None:
    assert rates("cosine", iterations=3, warmup=3) == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_wsd_falls_at_the_end_only() -> None:
    values = rates("wsd", warmup=2, decay=4, min_lr=0.2)
    assert values == pytest.approx([0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2])
