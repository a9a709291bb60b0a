"""State of the megatron engine: saving, resuming under any layout, bad gradients, evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import jobs
from conftest import write_checkpoint
from parity import random_tokens
from reference_model import TrainingRecipe
from runs import run_values, write_instruction_rows
from workers import WorkerGroup

Workers = Callable[[int], WorkerGroup]

STEPS = 6
SAVED = 3

LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "TP1": (1, {}),
    "TP2": (2, {"tensor": 2}),
    "PP2": (2, {"pipeline": 2}),
    "DP2": (2, {}),
    "DP2+distributed optimizer": (2, {"distributed_optimizer": True}),
    "TP2+distributed optimizer": (2, {"tensor": 2, "distributed_optimizer": True}),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_checkpoint(folder / "hf", "alibi", num_layers=2, num_heads=10)
    write_instruction_rows(folder / "rows", random_tokens(251, STEPS * 4, 65))
    return folder


def values(inputs: Path, parallel: dict[str, Any], **groups: Any) -> dict[str, Any]:
    return run_values(
        inputs / "hf",
        inputs / "rows",
        TrainingRecipe(),
        parallel=parallel,
        train={"iterations": STEPS},
        **groups,
    )


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_resumed_run_has_the_same_losses_bit_for_bit(
    inputs: Path, workers: Workers, tmp_path: Path, layout: str, asynchronous: bool
) -> None:
    size, parallel = LAYOUTS[layout]
    config = values(inputs, parallel, checkpoint={"asynchronous": asynchronous})
    saved = str(tmp_path / "saved")
    whole = workers(size).run(jobs.train_and_save, config, saved, SAVED)[0]
    resumed = workers(size).run(jobs.load_and_train, config, saved)[0]
    assert resumed == whole[SAVED:]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("TP2", "TP1"),
        ("TP1", "TP2"),
        ("TP2", "PP2"),
        ("PP2", "DP2"),
        ("DP2+distributed optimizer", "TP2+distributed optimizer"),
        ("TP2+distributed optimizer", "DP2+distributed optimizer"),
    ],
)
def test_a_run_resumes_under_another_layout(
    inputs: Path, workers: Workers, tmp_path: Path, before: str, after: str
) -> None:
    saved = str(tmp_path / "saved")
    size, parallel = LAYOUTS[before]
    whole = workers(size).run(jobs.train_and_save, values(inputs, parallel), saved, SAVED)[0]
    size, parallel = LAYOUTS[after]
    resumed = workers(size).run(jobs.load_and_train, values(inputs, parallel), saved)[0]
    expected = [loss for loss, _ in whole[SAVED:]]
    assert [loss for loss, _ in resumed] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("layout", ["TP2", "DP2+distributed optimizer"])
def test_a_step_with_a_bad_gradient_changes_nothing(
    inputs: Path, workers: Workers, layout: str
) -> None:
    size, parallel = LAYOUTS[layout]
    config = values(inputs, parallel)
    clean = workers(size).run(jobs.train, config)[0]
    poisoned = workers(size).run(jobs.train_with_a_bad_gradient, config, 2)[0]
    assert poisoned[:2] == clean[:2]
    assert poisoned[2][0] == clean[2][0]
    assert math.isnan(poisoned[2][1])
    # Training goes on, from the parameters before the bad step.
    assert all(math.isfinite(loss) for loss, _ in poisoned[3:])
    assert poisoned[3] != clean[3]


@pytest.mark.parametrize("layout", ["TP1", "PP2", "DP2"])
def test_evaluation_computes_the_loss_of_training(
    inputs: Path, workers: Workers, layout: str
) -> None:
    size, parallel = LAYOUTS[layout]
    for evaluated, trained in workers(size).run(jobs.evaluate, values(inputs, parallel)):
        assert evaluated == trained


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("layout", ["TP2", "DP2+distributed optimizer"])
def test_sixteen_bits_follow_float32(
    inputs: Path, workers: Workers, layout: str, precision: str
) -> None:
    size, parallel = LAYOUTS[layout]
    config = values(inputs, parallel)
    expected = [loss for loss, _ in workers(size).run(jobs.train, config)[0]]
    ranks = workers(size).run(jobs.train, {**config, "precision": precision})
    assert [loss for loss, _ in ranks[0]] == pytest.approx(expected, rel=2e-2)
