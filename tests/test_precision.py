"""Training in bfloat16 follows float32 for 200 steps, while the loss falls by more than half."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import jobs
from conftest import write_checkpoint
from reference_model import TrainingRecipe
from runs import run_values, write_instruction_rows
from workers import WorkerGroup

Workers = Callable[[int], WorkerGroup]

STEPS = 200
BATCH = 8
LENGTH = 32
VOCABULARY = 64
SURE = 0.75
"""How often a token follows from the one before it. The rest is drawn, so that the loss has a floor
far from zero, where relative errors mean something."""

ENGINES: dict[str, dict[str, Any]] = {
    "megatron": {"parallel": {"distributed_optimizer": True}},
    "deepspeed": {"deepspeed": {"zero_stage": 1}},
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 64, "num_heads": 4, "intermediate_size": 128}
    write_checkpoint(folder / "hf", "alibi", **sizes)
    write_instruction_rows(folder / "rows", _chains(STEPS * BATCH))
    return folder


def _chains(rows: int) -> torch.Tensor:
    """Returns (rows, LENGTH + 1) ids, each of which mostly follows from the one before it."""
    draw = np.random.default_rng(0)
    following = draw.permutation(VOCABULARY)
    tokens = draw.integers(VOCABULARY, size=(rows, LENGTH + 1))
    sure = draw.random((rows, LENGTH + 1)) < SURE
    for place in range(1, LENGTH + 1):
        tokens[sure[:, place], place] = following[tokens[sure[:, place], place - 1]]
    return torch.from_numpy(tokens)


@pytest.mark.parametrize("engine", ENGINES)
def test_bfloat16_stays_within_two_percent_of_float32(
    inputs: Path, workers: Workers, engine: str
) -> None:
    values = run_values(
        inputs / "hf",
        inputs / "rows",
        TrainingRecipe(lr=3e-3),
        data={"seq_length": LENGTH},
        batch={"micro": 4, "global": BATCH},
        train={"iterations": STEPS},
        **ENGINES[engine],
    )
    values["engine"] = engine
    exact, rounded = (
        [loss for loss, _ in workers(2).run(jobs.train, {**values, "precision": precision})[0]]
        for precision in ("float32", "bfloat16")
    )
    assert exact[-1] < exact[0] / 2
    errors = np.abs(np.subtract(rounded, exact)) / exact
    assert errors.max() <= 0.02, f"step {errors.argmax()}: {errors.max():.4f}"
