"""`verify --against` compares checkpoints of any formats, bits and not numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.cli import main
from bc2_ckpt.config import ModelConfig
from bc2_ckpt.convert import convert
from bc2_ckpt.formats import FORMATS
from bc2_ckpt.integrity import comparison
from bc2_ckpt.integrity.comparison import compare

W_PACK = "model.layers.1.self_attn.W_pack.weight"


def failures(left: Path, right: Path) -> list[str]:
    checks = compare(open_checkpoint(left), open_checkpoint(right))
    return [check.what for check in checks if check.state == "failed"]


@pytest.fixture
def build(
    config: ModelConfig, tensors: dict[str, Tensor], build_bin: Callable[..., Path]
) -> Callable[..., Path]:
    """Returns a function that builds the model with some tensors replaced."""

    def build(name: str, changed: ModelConfig = config, **replaced: Tensor) -> Path:
        names = {"w_pack": W_PACK, "norm": "model.norm.weight"}
        return build_bin(
            changed, tensors | {names[key]: value for key, value in replaced.items()}, name=name
        )

    return build


@pytest.mark.parametrize("left", FORMATS)
@pytest.mark.parametrize("right", FORMATS)
def test_the_same_model_is_equal_in_any_two_formats(
    build: Callable[..., Path],
    tensors: dict[str, Tensor],
    tmp_path: Path,
    left: str,
    right: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = open_checkpoint(build("hf"))
    convert(source, tmp_path / "left", left)
    convert(source, tmp_path / "right", right)
    arguments = ["verify", str(tmp_path / "left"), "--against", str(tmp_path / "right")]
    assert main(arguments) == 0
    count = len(tensors)
    assert f"ok       {count} of {count} tensors are equal bit by bit\n" in capsys.readouterr().out


@pytest.mark.parametrize("to", FORMATS)
def test_one_different_bit_is_found_and_placed(
    build: Callable[..., Path], tensors: dict[str, Tensor], tmp_path: Path, to: str
) -> None:
    changed = tensors[W_PACK].clone()
    changed.view(torch.int16)[7, 2] ^= 1
    convert(open_checkpoint(build("other", w_pack=changed)), tmp_path / "out", to)
    (failure,) = failures(build("hf"), tmp_path / "out")
    ours, theirs = tensors[W_PACK][7, 2].item(), changed[7, 2].item()
    assert failure == (
        f"{W_PACK}: 1 of {changed.numel():,} elements differ, the first at [7, 2]: "
        f"{ours} here, {theirs} there"
    )


def test_the_place_is_that_in_the_whole_tensor(
    build: Callable[..., Path], tensors: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        comparison, "read_blocks", lambda reader, name: iter(reader.read(name).split(3))
    )
    changed = tensors[W_PACK].clone()
    for place in ((7, 2), (7, 3), (11, 0)):
        changed[place] += 1
    (failure,) = failures(build("hf"), build("other", w_pack=changed))
    assert f"{W_PACK}: 3 of {changed.numel():,} elements differ, the first at [7, 2]:" in failure


def test_bits_count_and_not_numbers(build: Callable[..., Path], tensors: dict[str, Tensor]) -> None:
    norm = tensors["model.norm.weight"].clone()
    norm[0], norm[1] = 0.0, math.nan
    same = build("a", norm=norm)
    assert not failures(same, build("b", norm=norm.clone()))
    norm[0] = -0.0
    (failure,) = failures(same, build("c", norm=norm))
    assert failure.endswith("the first at [0]: 0.0 here, -0.0 there")


def test_another_dtype_and_another_model_are_told(
    build: Callable[..., Path], config: ModelConfig, tensors: dict[str, Tensor]
) -> None:
    changed = replace(config, norm_head=False)
    wide = tensors[W_PACK].float()
    assert failures(build("a"), build("b", changed, w_pack=wide)) == [
        "norm_head is True here and False there",
        "1 tensors are bfloat16 here and float32 there",
    ]


def test_a_model_of_another_size_is_told(
    build: Callable[..., Path],
    config: ModelConfig,
    tensors: dict[str, Tensor],
    build_bin: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    fewer = {name: tensor for name, tensor in tensors.items() if ".layers.2." not in name}
    small = build_bin(replace(config, num_layers=2), fewer, name="small")
    found = failures(build("hf"), small)
    assert "num_layers is 3 here and 2 there" in found
    assert "model.layers.2.mlp.down_proj.weight is missing there" in found
    assert main(["verify", str(small), "--against", str(build("again"))]) == 1
