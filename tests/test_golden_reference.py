"""The yardstick itself against results of the official modelling code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from parity import assert_gradients_close, assert_logits_close, assert_trajectory_close
from reference_model import ReferenceModel, TrainingRecipe

if TYPE_CHECKING:
    from conftest import Golden


@pytest.fixture
def model(golden: Golden) -> ReferenceModel:
    return ReferenceModel.load(golden.checkpoint)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_logits(golden: Golden, model: ReferenceModel, mode: str) -> None:
    assert_logits_close(model.logits(golden["input_ids"]), golden[f"logits_{mode}"])


def test_logits_of_padded_rows_and_of_documents(golden: Golden, model: ReferenceModel) -> None:
    actual = model.logits(golden["input_ids"], golden.segments)
    assert_logits_close(actual, golden.logits_segments, where=golden.segments > 0)


def test_loss_and_gradients(golden: Golden, model: ReferenceModel) -> None:
    loss = model.loss(golden["input_ids"], golden["input_ids"])
    loss.backward()
    assert loss.item() == pytest.approx(golden["loss_train"].item(), rel=1e-6)
    gradients = {name: weight.grad for name, weight in model.weights.items()}
    assert_gradients_close(gradients, golden.gradients)
    norms = {name: gradient.norm().item() for name, gradient in gradients.items()}
    assert norms == pytest.approx(golden.grad_norms, rel=1e-4)


def test_greedy(golden: Golden, model: ReferenceModel) -> None:
    prompt = golden["greedy"][:, :16]
    assert torch.equal(model.greedy(prompt, 24), golden["greedy"])


def test_training(golden: Golden, model: ReferenceModel) -> None:
    batches = golden["traj_tokens"].long()
    losses, norms = model.train(batches, TrainingRecipe.load(golden.recipe))
    assert_trajectory_close(losses, golden["traj_loss"].tolist())
    assert norms == pytest.approx(golden["traj_grad_norm"].tolist(), rel=1e-4)
