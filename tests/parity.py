"""How close an engine in float32 must come to the reference, and what to say where it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

LOGITS_MAX = 2e-4
LOGITS_MEAN = 1e-5
GRADIENT_RELATIVE = 1e-4
LOSS_RELATIVE = 2e-5


def assert_logits_close(actual: Tensor, expected: Tensor, where: Tensor | None = None) -> None:
    """Compares logits (..., vocab) at the positions that `where` (...) marks, or everywhere."""
    assert actual.shape == expected.shape
    error = (actual.detach().float().cpu() - expected).abs()
    if where is not None:
        assert where.any(), "no position left to compare"
        error = error[where]
    assert error.max() <= LOGITS_MAX, f"max error {error.max():.2e}"
    assert error.mean() <= LOGITS_MEAN, f"mean error {error.mean():.2e}"


def assert_gradients_close(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Compares whole gradients by the norm of their difference, relative to the expected norm."""
    assert expected.keys() <= actual.keys(), expected.keys() - actual.keys()
    for name, gradient in expected.items():
        error = (actual[name].float().cpu() - gradient).norm() / gradient.norm()
        assert error <= GRADIENT_RELATIVE, f"{name}: relative error {error:.2e}"


def assert_trajectory_close(actual: Sequence[float], expected: Sequence[float]) -> None:
    """Compares the losses of a training run step by step."""
    assert len(actual) == len(expected)
    for step, (one, other) in enumerate(zip(actual, expected, strict=True)):
        error = abs(one - other) / abs(other)
        assert error <= LOSS_RELATIVE, f"step {step}: {one} against {other}"


def random_tokens(vocab_size: int, *shape: int, seed: int = 0) -> Tensor:
    """Returns token ids drawn evenly from the whole vocabulary, id 0 included."""
    return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(seed))
