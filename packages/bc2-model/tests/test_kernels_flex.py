"""FlexAttention's bias and mask, in its forward pass on a CPU; it has no backward pass there."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from bc2_model.kernels import KernelError, alibi_slopes, attention
from bc2_model.kernels.backends import cuda_flex, reference
from bc2_model.kernels.problem import make_problem

IDS = torch.tensor([[1] * 5 + [2] * 7 + [1] * 2 + [0] * 2, [0] * 2 + [4] * 14])
CASES = {
    "whole": (1, 4, 4, 9, 9, None, None),
    "grouped": (2, 6, 2, 9, 9, None, None),
    "decoding": (2, 4, 2, 1, 9, None, None),
    "more queries than keys": (1, 4, 4, 9, 4, None, None),
    "queries past the keys": (1, 2, 2, 5, 9, None, 7),
    "queries before the keys": (1, 2, 2, 5, 9, None, -3),
    "nothing to see": (1, 2, 2, 5, 9, None, -20),
    "segments": (2, 4, 2, 16, 16, IDS, None),
    "segments in a chunk": (2, 4, 2, 6, 16, IDS, 5),
}


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("alibi", [True, False], ids=["alibi", "plain"])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize("case", CASES)
def test_bias_and_mask(case: str, causal: bool, alibi: bool) -> None:
    batch, heads, kv_heads, queries, keys, ids, shift = CASES[case]
    rng = torch.Generator().manual_seed(0)
    shapes = [(heads, queries), (kv_heads, keys), (kv_heads, keys)]
    q, k, v = (torch.randn(batch, *shape, 16, generator=rng) for shape in shapes)
    slopes = alibi_slopes(heads) if alibi else None
    problem = make_problem(q, k, v, slopes, causal, ids, None, 0.4, shift, 0)
    out = cuda_flex.solve(problem, flex_attention)
    torch.testing.assert_close(out, reference.attention(problem))


def test_a_cpu_has_a_reason() -> None:
    q = torch.zeros(1, 2, 4, 16)
    with pytest.raises(KernelError, match="'flex' cannot run this: the tensors are on cpu"):
        attention(q, q, q, backend="flex")
