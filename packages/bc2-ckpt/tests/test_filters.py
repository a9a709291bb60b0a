"""What happens to tensors between a source and a writer: dtype, NormHead, checksums."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bc2_ckpt.blocks import raw_bytes
from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.config import ModelConfig
from bc2_ckpt.errors import CkptError
from bc2_ckpt.filters.cast import Cast
from bc2_ckpt.filters.digesting import Digesting
from bc2_ckpt.filters.norm_head import HEAD, FoldedNormHead
from bc2_ckpt.filters.rounding import OverflowsError, rounded
from bc2_ckpt.formats.protocol import CheckpointReader


@pytest.fixture
def position_embedding() -> str:
    return "rotary"


@pytest.fixture
def reader(
    config: ModelConfig, tensors: dict[str, Tensor], build_bin: Callable[..., Path]
) -> CheckpointReader:
    return open_checkpoint(build_bin(config, tensors))


def all_values(dtype: torch.dtype) -> np.ndarray:
    """Every finite number of a 16-bit dtype, ascending; at an even place, with even bits."""
    bits = torch.arange(0x7C00 if dtype == torch.float16 else 0x7F80, dtype=torch.int16)
    return bits.view(dtype).double().numpy()


def nearest_even(x: float, values: np.ndarray) -> float:
    """The nearest of some ascending numbers, of two that are as near the one with even bits."""
    above = int(np.searchsorted(values, abs(x)))
    if above == len(values):
        return math.copysign(values[-1], x)
    below = max(above - 1, 0)
    down, up = abs(x) - values[below], values[above] - abs(x)
    place = below if down < up or (down == up and below % 2 == 0) else above
    return math.copysign(values[place], x)


@pytest.mark.parametrize("source", [torch.float64, torch.float32])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_values_around_every_tie_go_to_the_nearest_even(
    source: torch.dtype, dtype: torch.dtype
) -> None:
    values = all_values(dtype)
    ties = torch.from_numpy((values[:-1] + values[1:]) / 2).to(source)
    for x in (ties, ties.nextafter(torch.zeros_like(ties)), ties.nextafter(ties * 2 + 1)):
        expected = [nearest_even(value, values) for value in x[::7].tolist()]
        assert rounded(x[::7], dtype, "x").double().tolist() == expected
        assert rounded(-x[::7], dtype, "x").double().tolist() == [-value for value in expected]


@given(x=st.floats(-60000, 60000), dtype=st.sampled_from([torch.float16, torch.bfloat16]))
def test_float64_is_rounded_once(x: float, dtype: torch.dtype) -> None:
    result = rounded(torch.tensor([x], dtype=torch.float64), dtype, "x").double().item()
    assert result == nearest_even(x, all_values(dtype))


def test_by_way_of_float32_the_result_would_be_another() -> None:
    x = torch.tensor([1 + 2**-8 + 2**-40], dtype=torch.float64)
    assert x.bfloat16().item() == 1
    assert rounded(x, torch.bfloat16, "x").item() == 1 + 2**-7


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(65520.0, torch.float16), (-1e5, torch.float16), (3.4e38, torch.bfloat16)],
)
def test_what_would_overflow_is_refused_by_name(value: float, dtype: torch.dtype) -> None:
    x = torch.tensor([1.0, value, float("inf")])
    with pytest.raises(OverflowsError) as error:
        rounded(x, dtype, "model.norm.weight")
    assert error.value.message.startswith(f"model.norm.weight holds {abs(value):.6g}, but")


def test_the_largest_number_and_what_is_no_number_pass() -> None:
    x = torch.tensor([65504.0, 65519.0, float("inf"), -float("inf"), float("nan")])
    result = rounded(x, torch.float16, "x")
    assert result[:4].tolist() == [65504.0, 65504.0, math.inf, -math.inf]
    assert result[4].isnan()


def test_a_cast_reader_says_and_hands_out_another_dtype(
    reader: CheckpointReader, tensors: dict[str, Tensor]
) -> None:
    cast = Cast(reader, torch.float32)
    assert list(cast.tensors()) == list(tensors)
    for name, tensor in tensors.items():
        assert cast.tensors()[name].dtype == torch.float32
        assert torch.equal(cast.read(name), tensor.float())
    assert torch.equal(cast.read(HEAD, slice(3, 9)), tensors[HEAD][3:9].float())
    assert (cast.format, cast.source, cast.config) == (reader.format, reader.source, reader.config)
    assert cast.beside("tokenizer.model") == reader.beside("tokenizer.model")


def test_a_folded_head_gives_the_logits_of_the_norm_head(
    reader: CheckpointReader, tensors: dict[str, Tensor]
) -> None:
    folded = FoldedNormHead(reader, torch.float32)
    assert reader.config.norm_head
    assert not folded.config.norm_head
    weight = tensors[HEAD].double()
    x = torch.randn(5, weight.shape[1], dtype=torch.float64)
    logits = x @ (weight / weight.norm(dim=1, keepdim=True)).T
    torch.testing.assert_close(x @ folded.read(HEAD).double().T, logits, rtol=1e-6, atol=1e-6)
    others = [name for name in tensors if name != HEAD]
    assert all(torch.equal(folded.read(name), tensors[name]) for name in others)


def test_a_folded_head_is_rounded_once_and_the_same_in_parts(
    reader: CheckpointReader, tensors: dict[str, Tensor]
) -> None:
    folded = FoldedNormHead(reader)
    assert folded.tensors()[HEAD].dtype == torch.bfloat16
    exact = tensors[HEAD].double() / tensors[HEAD].double().norm(dim=1, keepdim=True)
    assert (folded.read(HEAD).double() - exact).abs().max() <= 2**-9
    parts = [folded.read(HEAD, slice(start, start + 10)) for start in range(0, 37, 10)]
    assert torch.equal(torch.cat(parts), folded.read(HEAD))
    to_half = Cast(FoldedNormHead(reader, torch.float16), torch.float16)
    assert torch.equal(to_half.read(HEAD), rounded(exact.float(), torch.float16, HEAD))


def test_a_row_of_zeros_stays_one(reader: CheckpointReader) -> None:
    reader.read(HEAD)[2] = 0
    assert not FoldedNormHead(reader).read(HEAD)[2].any()


def test_a_model_without_norm_head_cannot_be_folded(reader: CheckpointReader) -> None:
    with pytest.raises(CkptError, match="has no NormHead"):
        FoldedNormHead(FoldedNormHead(reader))


def test_digests_are_those_of_the_bytes_however_they_are_read(
    reader: CheckpointReader, tensors: dict[str, Tensor]
) -> None:
    counted: list[int] = []
    with Digesting(reader, counted.append) as digesting:
        for name in tensors:
            rows = tensors[name].shape[0]
            for start in range(0, rows, 8):
                digesting.read(name, slice(start, min(start + 8, rows)))
        digests = digesting.digests()
    expected = {name: hashlib.sha256(raw_bytes(t)).hexdigest() for name, t in tensors.items()}
    assert digests == expected
    assert sum(counted) == sum(tensor.nbytes for tensor in tensors.values())


def test_digests_of_rows_out_of_order_or_left_out_are_refused(reader: CheckpointReader) -> None:
    with Digesting(reader, lambda count: None) as digesting:
        digesting.read(HEAD, slice(0, 4))
        with pytest.raises(ValueError, match="row 8 was read after row 4"):
            digesting.read(HEAD, slice(8, 12))
        with pytest.raises(ValueError, match="was not read to its end"):
            digesting.digests()
