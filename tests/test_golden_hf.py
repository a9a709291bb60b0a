"""The transformers model against the official results, and against the reference everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from bc2_model.hf import BaichuanForCausalLM
from bc2_model.hf.loading import load_model
from parity import (
    assert_gradients_close,
    assert_logits_close,
    assert_trajectory_close,
    random_tokens,
)
from reference_model import ReferenceModel, TrainingRecipe, train

if TYPE_CHECKING:
    from conftest import Golden, MakeCheckpoint


def gradients(model: BaichuanForCausalLM) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


class TestOfficialResults:
    @pytest.fixture
    def model(self, golden: Golden) -> BaichuanForCausalLM:
        return load_model(golden.checkpoint)

    @pytest.mark.parametrize("mode", ["train", "eval"])
    def test_logits(self, golden: Golden, model: BaichuanForCausalLM, mode: str) -> None:
        logits = model.train(mode == "train")(golden["input_ids"]).logits
        assert_logits_close(logits, golden[f"logits_{mode}"])

    def test_logits_of_padded_rows_and_of_documents(
        self, golden: Golden, model: BaichuanForCausalLM
    ) -> None:
        logits = model.train()(golden["input_ids"], attention_mask=golden.segments).logits
        assert_logits_close(logits, golden.logits_segments, where=golden.segments > 0)

    def test_loss_and_gradients(self, golden: Golden, model: BaichuanForCausalLM) -> None:
        loss = model.train()(golden["input_ids"], labels=golden["input_ids"]).loss
        loss.backward()
        assert loss.item() == pytest.approx(golden["loss_train"].item(), rel=1e-6)
        assert_gradients_close(gradients(model), golden.gradients)
        norms = {name: gradient.norm().item() for name, gradient in gradients(model).items()}
        assert norms == pytest.approx(golden.grad_norms, rel=1e-4)

    def test_greedy(self, golden: Golden, model: BaichuanForCausalLM) -> None:
        prompt = golden["greedy"][:, :16]
        output = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=24, do_sample=False
        )
        assert torch.equal(output, golden["greedy"])

    def test_training(self, golden: Golden, model: BaichuanForCausalLM) -> None:
        losses, norms = train(
            model.train().parameters(),
            lambda batch: model(batch, labels=batch).loss,
            golden["traj_tokens"].long(),
            TrainingRecipe.load(golden.recipe),
        )
        assert_trajectory_close(losses, golden["traj_loss"].tolist())
        assert norms == pytest.approx(golden["traj_grad_norm"].tolist(), rel=1e-4)


@pytest.fixture(params=["rotary", "alibi"])
def checkpoint(
    request: pytest.FixtureRequest, tmp_path: Path, make_checkpoint: MakeCheckpoint
) -> Path:
    return make_checkpoint(tmp_path / "model", request.param)


DOCUMENTS = torch.tensor(
    [
        [1] * 40,
        [0] * 7 + [1] * 33,
        [1] * 31 + [0] * 9,
        [1] * 13 + [2] * 20 + [3] * 5 + [0] * 2,
    ]
)


class TestReference:
    """Needs nothing but this repository."""

    @pytest.mark.parametrize("segments", [None, DOCUMENTS], ids=["whole", "padding and documents"])
    def test_logits(self, checkpoint: Path, segments: Tensor | None) -> None:
        tokens = random_tokens(251, 4, 40)
        logits = load_model(checkpoint)(tokens, attention_mask=segments).logits
        where = None if segments is None else segments > 0
        expected = ReferenceModel.load(checkpoint).logits(tokens, segments).detach()
        assert_logits_close(logits, expected, where)

    @pytest.mark.parametrize(
        "options", [{}, {"z_loss_weight": 1e-2}, {"norm_head": False}], ids=str
    )
    def test_loss_and_gradients(
        self, tmp_path: Path, make_checkpoint: MakeCheckpoint, options: dict[str, float]
    ) -> None:
        checkpoint = make_checkpoint(tmp_path / "model", "alibi", **options)
        tokens = random_tokens(251, 4, 40)
        tokens[0, 3] = 0  # padding's id within a text: its row of the embedding is not trained
        labels = tokens.masked_fill(random_tokens(2, 4, 40, seed=1) == 0, -100)
        model, reference = load_model(checkpoint).train(), ReferenceModel.load(checkpoint)
        loss, expected = model(tokens, labels=labels).loss, reference.loss(tokens, labels)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
        loss.backward()
        expected.backward()
        assert model.model.embed_tokens.weight.grad[0].count_nonzero() == 0
        assert_gradients_close(
            gradients(model), {name: weight.grad for name, weight in reference.weights.items()}
        )

    def test_greedy(self, checkpoint: Path) -> None:
        prompt = random_tokens(251, 1, 8)
        output = load_model(checkpoint).generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=24, do_sample=False
        )
        # `generate` stops at the end-of-text token, the reference goes on.
        expected = ReferenceModel.load(checkpoint).greedy(prompt, 24)
        assert output.shape[1] > 16
        assert torch.equal(output, expected[:, : output.shape[1]])

    def test_training(self, checkpoint: Path) -> None:
        batches = random_tokens(251, 5, 4, 41)
        model, reference = load_model(checkpoint).train(), ReferenceModel.load(checkpoint)
        losses, _ = train(
            model.parameters(),
            lambda batch: model(batch, labels=batch).loss,
            batches,
            TrainingRecipe(),
        )
        assert_trajectory_close(losses, reference.train(batches, TrainingRecipe())[0])
