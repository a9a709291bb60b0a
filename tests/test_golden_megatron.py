"""megatron-core in every layout against the official results, and against the reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

import jobs
from bc2_ckpt.config import ModelConfig
from bc2_ckpt.layout import ParameterLayout
from bc2_data.vocab import padded_vocab_size
from parity import (
    assert_gradients_close,
    assert_logits_close,
    assert_trajectory_close,
    random_tokens,
)
from reference_model import ReferenceModel, TrainingRecipe
from runs import run_values, write_instruction_rows

if TYPE_CHECKING:
    from conftest import Golden, MakeCheckpoint
    from workers import WorkerGroup

Workers = Callable[[int], "WorkerGroup"]

LAYOUTS = {
    "TP1": (1, {}),
    "TP2": (2, {"tensor": 2}),
    "PP2": (2, {"pipeline": 2}),
    "DP2": (2, {}),
    "TP2xPP2": (4, {"tensor": 2, "pipeline": 2}),
    "TP2+SP": (2, {"tensor": 2, "sequence": True}),
    "PP2xVPP2": (2, {"pipeline": 2, "virtual_pipeline": 2}),
    "CP2": (2, {"context": 2}),
    "DP2+distributed optimizer": (2, {"distributed_optimizer": True}),
}


def joined(config: ModelConfig, shards: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Returns the gradients of all tensor-parallel ranks under Hugging Face names."""
    padded = padded_vocab_size(config.vocab_size, 128, len(shards))
    layout = ParameterLayout(config, len(shards), padded)
    whole: dict[str, torch.Tensor] = {}
    for name in shards[0]:
        whole |= layout.hf_tensors(name, [shard[name] for shard in shards])
    return whole


class TestOfficialResults:
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_trajectory(
        self, golden: Golden, workers: Workers, tmp_path: Path, layout: str
    ) -> None:
        size, parallel = LAYOUTS[layout]
        write_instruction_rows(tmp_path / "rows", golden["traj_tokens"].flatten(0, 1))
        recipe = TrainingRecipe.load(golden.recipe)
        values = run_values(golden.checkpoint, tmp_path / "rows", recipe, parallel=parallel)
        ranks = workers(size).run(jobs.train, values)
        losses = [loss for loss, _ in ranks[0]]
        assert all(rank == ranks[0] for rank in ranks)
        assert_trajectory_close(losses, golden["traj_loss"].tolist())
        norms = [norm for _, norm in ranks[0]]
        assert norms == pytest.approx(golden["traj_grad_norm"].tolist(), rel=1e-4)

    @pytest.mark.parametrize(
        ("size", "groups"),
        [
            (1, {"train": {"recompute": "full"}}),
            (1, {"train": {"recompute": "selective"}}),
            (2, {"train": {"recompute": "full"}, "parallel": {"tensor": 2, "sequence": True}}),
            (1, {"batch": {"micro": 4}}),
            (1, {"batch": {"micro": 1}}),
        ],
        ids=["full", "selective", "full+TP2+SP", "no accumulation", "four micro batches"],
    )
    def test_trajectory_with_recompute_and_accumulation(
        self, golden: Golden, workers: Workers, tmp_path: Path, size: int, groups: dict[str, Any]
    ) -> None:
        write_instruction_rows(tmp_path / "rows", golden["traj_tokens"].flatten(0, 1))
        recipe = TrainingRecipe.load(golden.recipe)
        groups = {**groups, "train": {"iterations": 20, **groups.get("train", {})}}
        values = run_values(golden.checkpoint, tmp_path / "rows", recipe, **groups)
        ranks = workers(size).run(jobs.train, values)
        assert_trajectory_close([loss for loss, _ in ranks[0]], golden["traj_loss"].tolist())

    @pytest.mark.parametrize("size", [1, 2])
    def test_logits(self, golden: Golden, workers: Workers, tmp_path: Path, size: int) -> None:
        values = self.values(golden, tmp_path, size)
        for segments, expected in (
            (None, golden["logits_train"]),
            (golden.segments, golden.logits_segments),
        ):
            where = None if segments is None else segments > 0
            for actual in workers(size).run(jobs.logits, values, golden["input_ids"], segments):
                assert_logits_close(actual, expected, where)

    @pytest.mark.parametrize("size", [1, 2])
    def test_gradients(self, golden: Golden, workers: Workers, tmp_path: Path, size: int) -> None:
        values = self.values(golden, tmp_path, size)
        shards = workers(size).run(jobs.gradients, values, golden["input_ids"])
        gradients = joined(ModelConfig.load(golden.checkpoint), shards)
        assert_gradients_close(gradients, golden.gradients)
        norms = {name: gradient.norm().item() for name, gradient in gradients.items()}
        assert norms == pytest.approx(golden.grad_norms, rel=1e-4)

    @pytest.mark.parametrize("size", [1, 2])
    def test_greedy(self, golden: Golden, workers: Workers, tmp_path: Path, size: int) -> None:
        values = self.values(golden, tmp_path, size)
        for tokens in workers(size).run(jobs.greedy, values, golden["greedy"][:, :16], 24):
            assert torch.equal(tokens, golden["greedy"])

    def values(self, golden: Golden, tmp_path: Path, tensor: int) -> dict[str, Any]:
        recipe = TrainingRecipe.load(golden.recipe)
        return run_values(
            golden.checkpoint, tmp_path / "unused", recipe, parallel={"tensor": tensor}
        )


@pytest.mark.parametrize("position", ["rotary", "alibi"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_trajectory_of_the_reference(
    position: str, layout: str, make_checkpoint: MakeCheckpoint, workers: Workers, tmp_path: Path
) -> None:
    size, parallel = LAYOUTS[layout]
    checkpoint = make_checkpoint(tmp_path / "hf", position, num_layers=4)
    vocab_size = ModelConfig.load(checkpoint).vocab_size
    tokens = random_tokens(vocab_size, 5, 4, 65)
    recipe = TrainingRecipe()
    losses, _ = ReferenceModel.load(checkpoint).train(tokens, recipe)
    write_instruction_rows(tmp_path / "rows", tokens.flatten(0, 1))
    values = run_values(
        checkpoint, tmp_path / "rows", recipe, parallel=parallel, train={"iterations": 5}
    )
    ranks = workers(size).run(jobs.train, values)
    assert_trajectory_close([loss for loss, _ in ranks[0]], losses)
