"""The deepspeed engine at every ZeRO stage against the official results, and the reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import jobs
from bc2_ckpt.config import ModelConfig
from parity import assert_trajectory_close, random_tokens
from reference_model import ReferenceModel, TrainingRecipe
from runs import run_values, write_instruction_rows

if TYPE_CHECKING:
    from conftest import Golden, MakeCheckpoint
    from workers import WorkerGroup

Workers = Callable[[int], "WorkerGroup"]

STAGES = [(2, stage) for stage in range(4)] + [(1, 0), (1, 3)]


@pytest.mark.parametrize(("size", "stage"), STAGES)
def test_trajectory_of_the_official_code(
    golden: Golden, workers: Workers, tmp_path: Path, size: int, stage: int
) -> None:
    write_instruction_rows(tmp_path / "rows", golden["traj_tokens"].flatten(0, 1))
    recipe = TrainingRecipe.load(golden.recipe)
    values = run_values(
        golden.checkpoint, tmp_path / "rows", recipe, deepspeed={"zero_stage": stage}
    )
    ranks = workers(size).run(jobs.train, {**values, "engine": "deepspeed"})
    assert all(rank == ranks[0] for rank in ranks)
    assert_trajectory_close([loss for loss, _ in ranks[0]], golden["traj_loss"].tolist())
    norms = [norm for _, norm in ranks[0]]
    assert norms == pytest.approx(golden["traj_grad_norm"].tolist(), rel=1e-4)


LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    **{f"ZeRO {stage}": (2, {"deepspeed": {"zero_stage": stage}}) for stage in range(4)},
    "four micro batches": (1, {"deepspeed": {"zero_stage": 2}, "batch": {"micro": 1}}),
    "ZeRO 1, offload": (2, {"deepspeed": {"zero_stage": 1, "offload": "optimizer"}}),
    "ZeRO 3, offload": (2, {"deepspeed": {"zero_stage": 3, "offload": "optimizer"}}),
    "ZeRO 2, recompute": (2, {"deepspeed": {"zero_stage": 2}, "train": {"recompute": "full"}}),
    "ZeRO 3, recompute": (2, {"deepspeed": {"zero_stage": 3}, "train": {"recompute": "full"}}),
}


@pytest.mark.parametrize(
    ("position", "layout"),
    [
        *(("alibi", layout) for layout in LAYOUTS),
        ("rotary", "ZeRO 1"),
        ("rotary", "ZeRO 3"),
    ],
)
def test_trajectory_of_the_reference(
    position: str, layout: str, make_checkpoint: MakeCheckpoint, workers: Workers, tmp_path: Path
) -> None:
    size, groups = LAYOUTS[layout]
    checkpoint = make_checkpoint(tmp_path / "hf", position)
    tokens = random_tokens(ModelConfig.load(checkpoint).vocab_size, 5, 4, 65)
    # AdamW forgives a wrong scale of the gradients; with so large an eps it does not.
    recipe = TrainingRecipe(lr=0.1, eps=0.1, clip=0.2)
    losses, norms = ReferenceModel.load(checkpoint).train(tokens, recipe)
    write_instruction_rows(tmp_path / "rows", tokens.flatten(0, 1))
    train = {"iterations": 5, **groups.get("train", {})}
    values = run_values(checkpoint, tmp_path / "rows", recipe, **{**groups, "train": train})
    ranks = workers(size).run(jobs.train, {**values, "engine": "deepspeed"})
    assert all(rank == ranks[0] for rank in ranks)
    assert_trajectory_close([loss for loss, _ in ranks[0]], losses)
    assert [norm for _, norm in ranks[0]] == pytest.approx(norms, rel=1e-4)
