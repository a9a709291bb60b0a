"""What megatron-core 0.16.1 gets wrong on our path is set right, and still needs to be.

Every test runs twice: as bc2 does it, and as megatron-core does, which must go wrong. Where the
second no longer does, upstream has mended it and what sets it right can go.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from megatron.core.transformer.torch_norm import WrappedTorchNorm

import megatron_fix_jobs
from bc2_ckpt.config import ModelConfig
from bc2_model.megatron import Baichuan2TransformerConfig
from conftest import write_checkpoint
from parity import random_tokens
from reference_model import TrainingRecipe
from runs import run_values, write_instruction_rows
from workers import WorkerGroup

Workers = Callable[[int], WorkerGroup]

both_ways = pytest.mark.parametrize("set_right", [True, False], ids=["bc2", "upstream"])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_checkpoint(folder / "hf", "alibi", num_layers=4)
    write_instruction_rows(folder / "rows", random_tokens(251, 16, 65))
    return folder


def values(inputs: Path, **parallel: Any) -> dict[str, Any]:
    return run_values(
        inputs / "hf",
        inputs / "rows",
        TrainingRecipe(),
        parallel=parallel,
        batch={"micro": 1},  # with fewer micro batches, messages between stages are not mistaken
        train={"iterations": 2},
    )


@both_ways
def test_two_stages_of_a_virtual_pipeline(inputs: Path, workers: Workers, set_right: bool) -> None:
    expected = workers(1).run(megatron_fix_jobs.train, values(inputs), set_right=True)[0]
    layout = values(inputs, pipeline=2, virtual_pipeline=2)
    steps = workers(2).run(megatron_fix_jobs.train, layout, set_right=set_right)[0]
    right = [loss for loss, _ in steps] == pytest.approx([loss for loss, _ in expected], rel=1e-6)
    assert right == set_right, f"{steps} against {expected}"


@both_ways
def test_adamw_counts_its_steps_after_a_load(
    inputs: Path, workers: Workers, tmp_path: Path, set_right: bool
) -> None:
    layout = values(inputs, distributed_optimizer=True)
    for before, after in workers(2).run(
        megatron_fix_jobs.step_counts, layout, str(tmp_path / "saved"), set_right=set_right
    ):
        assert before == {3.0}
        assert (after == {4.0}) == set_right, after


@both_ways
def test_norms_on_a_part_of_the_sequence(inputs: Path, workers: Workers, set_right: bool) -> None:
    (expected,) = workers(1).run(megatron_fix_jobs.norm_gradients, values(inputs), set_right=True)
    layout = values(inputs, tensor=2, sequence=True)
    ranks = workers(2).run(megatron_fix_jobs.norm_gradients, layout, set_right=set_right)
    for gradients in ranks:
        assert gradients.keys() == expected.keys()
        right = all(
            torch.allclose(gradients[name], expected[name], rtol=1e-4, atol=1e-6)
            for name in expected
        )
        assert right == set_right


def test_the_norm_of_megatron_core_refuses_a_part_of_the_sequence() -> None:
    config = Baichuan2TransformerConfig.create(
        ModelConfig.load("tiny-13b"), tensor_model_parallel_size=2, sequence_parallel=True
    )
    with pytest.raises(AssertionError, match="sequence parallel not supported"):
        WrappedTorchNorm(config, config.hidden_size)
