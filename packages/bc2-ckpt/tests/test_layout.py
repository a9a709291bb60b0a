"""The table and the transforms: inverses of each other at every tensor-parallel size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bc2_ckpt.config import PRESETS, ModelConfig
from bc2_ckpt.errors import MismatchError
from bc2_ckpt.layout import ParameterLayout
from bc2_ckpt.transforms import PackedQKV, PaddedVocab, gather, join, join_rows, split, split_rows

sizes = st.integers(1, 4)


@given(tp=sizes, rows=sizes, columns=sizes, axis=st.sampled_from([None, 0, 1]))
def test_join_undoes_split(tp: int, rows: int, columns: int, axis: int | None) -> None:
    x = torch.randn(tp * rows, tp * columns)
    shards = split(x, axis, tp)
    assert len(shards) == tp
    assert torch.equal(join(shards, axis), x)


@given(heads=sizes, head_dim=sizes, columns=sizes)
def test_packed_qkv_is_undone(heads: int, head_dim: int, columns: int) -> None:
    x = torch.randn(3 * heads * head_dim, columns)
    assert torch.equal(PackedQKV(heads).to_hf(PackedQKV(heads).to_megatron(x)), x)


def test_packed_qkv_interleaves_head_by_head() -> None:
    names = torch.tensor([10, 11, 20, 21, 30, 31]).unsqueeze(1)  # q0 q1 k0 k1 v0 v1
    assert PackedQKV(2).to_megatron(names).flatten().tolist() == [10, 20, 30, 11, 21, 31]


@given(rows=sizes, padding=st.integers(0, 4))
def test_padded_vocab_adds_zeros_and_takes_them_away(rows: int, padding: int) -> None:
    x = torch.ones(rows, 2)
    padded = PaddedVocab(rows, rows + padding).to_megatron(x)
    assert padded.shape == (rows + padding, 2)
    assert padded.sum() == x.sum()
    assert torch.equal(PaddedVocab(rows, rows + padding).to_hf(padded), x)


def test_copies_that_differ_are_refused() -> None:
    with pytest.raises(MismatchError, match="ranks 0 and 1"):
        join([torch.zeros(2), torch.ones(2)], None)


@pytest.mark.parametrize("tp", [1, 2])
def test_every_parameter_comes_back_from_its_shards(
    config: ModelConfig, tensors: dict[str, Tensor], tp: int
) -> None:
    layout = ParameterLayout(config, tp_size=tp, padded_vocab_size=40)
    back: dict[str, Tensor] = {}
    for param in layout.params:
        shards = [layout.megatron_shard(param.megatron, tensors.__getitem__, r) for r in range(tp)]
        back |= layout.hf_tensors(param.megatron, shards)
    assert list(back) == list(tensors)
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_a_rank_of_the_gated_mlp_holds_its_part_of_gate_above_its_part_of_up(
    config: ModelConfig, tensors: dict[str, Tensor]
) -> None:
    layout = ParameterLayout(config, tp_size=2, padded_vocab_size=40)
    shard = layout.megatron_shard("decoder.layers.1.mlp.linear_fc1.weight", tensors.__getitem__, 1)
    gate, up = (tensors[f"model.layers.1.mlp.{name}_proj.weight"] for name in ("gate", "up"))
    assert torch.equal(shard, torch.cat([gate[9:], up[9:]]))


def test_a_rank_holds_its_heads_and_the_padding_of_the_vocabulary(
    config: ModelConfig, tensors: dict[str, Tensor]
) -> None:
    layout = ParameterLayout(config, tp_size=2, padded_vocab_size=40)
    read = tensors.__getitem__
    shard = layout.megatron_shard("decoder.layers.2.self_attention.linear_qkv.weight", read, 1)
    first_q = tensors["model.layers.2.self_attn.W_pack.weight"][config.hidden_size // 2]
    assert shard.shape == (3 * config.hidden_size // 2, config.hidden_size)
    assert torch.equal(shard[0], first_q)
    rows = layout.megatron_shard("output_layer.weight", read, 1)
    assert torch.equal(rows[:17], tensors["lm_head.weight"][20:])
    assert rows[17:].shape == (3, config.hidden_size)
    assert not rows[17:].any()


def test_the_names_that_a_parameter_needs(config: ModelConfig) -> None:
    names = ParameterLayout(config).hf_names("decoder.layers.0.mlp.linear_fc1.weight")
    prefix = "model.layers.0.mlp."
    assert names == (prefix + "gate_proj.weight", prefix + "up_proj.weight")


def test_an_unknown_name_fails_with_the_nearest(config: ModelConfig) -> None:
    with pytest.raises(MismatchError) as error:
        ParameterLayout(config).param("decoder.layers.0.mlp.linear_fc1.wieght")
    assert "'decoder.layers.0.mlp.linear_fc1.weight'" in error.value.hint


@pytest.mark.parametrize(
    ("tp", "padded", "what"),
    [(4, 40, "intermediate"), (5, 40, "attention heads"), (2, 37, "vocabulary"), (1, 36, "true")],
)
def test_what_cannot_be_cut_is_refused(
    config: ModelConfig, tp: int, padded: int, what: str
) -> None:
    if config.position_embedding == "alibi" and tp == 4:
        what = "attention heads"
    with pytest.raises(MismatchError, match=what):
        ParameterLayout(config, tp_size=tp, padded_vocab_size=padded)


@pytest.mark.parametrize(
    ("preset", "parameters"), [("baichuan2-7b", 7_505_973_248), ("baichuan2-13b", 13_896_668_160)]
)
def test_the_table_has_every_parameter_of_the_real_models(preset: str, parameters: int) -> None:
    config = PRESETS[preset]
    shapes = ParameterLayout(config).hf_shapes()
    elements = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert elements == config.num_parameters == parameters


def test_the_table_has_the_names_of_the_real_13b_release(shared: Path) -> None:
    index = json.loads((shared / "baichuan2/pytorch_model.bin.index-13b.json").read_text())
    names = ParameterLayout(PRESETS["baichuan2-13b"]).hf_shapes()
    assert set(names) == set(index["weight_map"])


@given(heads=sizes, head_dim=sizes, data=st.data())
def test_rows_of_packed_qkv_are_found_on_both_sides(
    heads: int, head_dim: int, data: st.DataObject
) -> None:
    length = 3 * heads * head_dim
    start = data.draw(st.integers(0, length - 1))
    rows = slice(start, data.draw(st.integers(start + 1, length)))
    transform = PackedQKV(heads)
    hf = torch.arange(length).unsqueeze(1)
    megatron = transform.to_megatron(hf)
    assert torch.equal(
        gather(transform.megatron_rows(rows, length), megatron.__getitem__), hf[rows]
    )
    assert torch.equal(gather(transform.hf_rows(rows, length), hf.__getitem__), megatron[rows])


@given(tp=sizes, rows=sizes, columns=sizes, axis=st.sampled_from([None, 0, 1]), data=st.data())
def test_rows_are_split_and_joined_as_the_whole_is(
    tp: int, rows: int, columns: int, axis: int | None, data: st.DataObject
) -> None:
    x = torch.randn(tp * rows, tp * columns)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(x) - 1)) if len(x) > 1 else st.just(set())))
    parts: list[list[Tensor]] = [[] for _ in range(tp)]
    for start, stop in zip([0, *cuts], [*cuts, len(x)], strict=True):
        for rank, part in split_rows(x[start:stop], start, len(x), axis, tp):
            parts[rank].append(part)
    shards = [torch.cat(of_rank) for of_rank in parts]
    assert all(map(torch.equal, shards, split(x, axis, tp)))
    for start, stop in zip([0, *cuts], [*cuts, len(x)], strict=True):
        assert torch.equal(join_rows(shards, slice(start, stop), axis), x[start:stop])


def test_copies_that_are_no_numbers_are_alike() -> None:
    nan = torch.full((2,), float("nan"))
    assert join([nan, nan.clone()], None).isnan().all()
