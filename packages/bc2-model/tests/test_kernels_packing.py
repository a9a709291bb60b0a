"""Segment ids as cumulative lengths, and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bc2_model.kernels import packing
from bc2_model.kernels.packing import gather, pack, scatter


def test_padding_is_left_out() -> None:
    packed = pack(torch.tensor([[1, 1, 2, 0], [0, 7, 7, 7]]))
    assert packed.ends == [2, 3, 6]
    assert packed.cu_seqlens.tolist() == [0, 2, 3, 6]
    assert packed.cu_seqlens.dtype == torch.int32
    assert packed.longest == 3
    assert packed.tokens.tolist() == [0, 1, 2, 5, 6, 7]


def test_equal_ids_of_two_rows_are_two_segments() -> None:
    packed = pack(torch.tensor([[1, 1], [1, 1]]))
    assert packed.ends == [2, 4]
    assert packed.tokens is None


def test_an_id_in_several_places_has_no_packing() -> None:
    assert pack(torch.tensor([[1, 2, 1]])) is None
    assert pack(torch.tensor([[1, 0, 1]])) is None


def test_padding_alone() -> None:
    packed = pack(torch.zeros(1, 3, dtype=torch.int64))
    assert packed.ends == []
    assert packed.longest == 0


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4), padding=st.integers(0, 3))
def test_scatter_undoes_gather(lengths: list[int], padding: int) -> None:
    ids = torch.arange(1, len(lengths) + 1).repeat_interleave(torch.tensor(lengths))
    ids = torch.cat((ids, torch.zeros(padding, dtype=torch.int64)))[None]
    x = torch.randn(1, 2, ids.shape[1], 3)
    packed = pack(ids)
    tokens = gather(x, packed)
    assert tokens.shape == (sum(lengths), 2, 3)
    back = scatter(tokens, packed, 1, ids.shape[1])
    assert torch.equal(back, x * (ids != 0)[:, None, :, None])


def test_layers_that_share_their_ids_share_the_packing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    make = packing._pack
    monkeypatch.setattr(packing, "_pack", lambda ids: made.append(ids) or make(ids))
    ids = torch.tensor([[1, 1, 2, 2]])
    assert pack(ids) is pack(ids)
    assert len(made) == 1
    ids[0, 3] = 0  # changed in place
    assert pack(ids).ends == [2, 3]
    pack(ids.clone())
    assert len(made) == 3


def test_tensors_of_inference_mode() -> None:
    with torch.inference_mode():
        ids = torch.tensor([[1, 1, 2, 2]])
        assert pack(ids).ends == [2, 4]
        ids[0, 3] = 0
        assert pack(ids).ends == [2, 3]
