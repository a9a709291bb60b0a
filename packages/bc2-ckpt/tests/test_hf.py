"""Hugging Face directories of every kind are read, and what is written needs no edit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.cli import main
from bc2_ckpt.config import ModelConfig
from bc2_ckpt.convert import convert
from bc2_ckpt.errors import DamagedFileError, MismatchError
from bc2_ckpt.filters.norm_head import HEAD, unit_rows

BuildBin = Callable[..., Path]
INDEX = "pytorch_model.bin.index.json"


@pytest.fixture
def position_embedding() -> str:
    return "rotary"


def assert_holds(directory: Path, tensors: dict[str, Tensor]) -> None:
    reader = open_checkpoint(directory)
    assert list(reader.tensors()) == list(tensors)
    assert all(torch.equal(reader.read(name), tensors[name]) for name in tensors)


@pytest.mark.parametrize("shards", [1, 3])
def test_bin_files_need_no_index(
    config: ModelConfig, tensors: dict[str, Tensor], build_bin: BuildBin, shards: int
) -> None:
    directory = build_bin(config, tensors, shards)
    (directory / INDEX).unlink(missing_ok=True)
    torch.save({"lr": 0.1}, directory / "training_args.bin")
    assert_holds(directory, tensors)


@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
def test_a_missing_shard_is_named_without_an_index(
    config: ModelConfig, tensors: dict[str, Tensor], build_bin: BuildBin, suffix: str
) -> None:
    directory = build_bin(config, tensors)
    (directory / INDEX).unlink()
    if suffix == "safetensors":
        for path in directory.glob("*.bin"):
            save_file(torch.load(path), path.with_suffix(".safetensors"))
            path.unlink()
    assert_holds(directory, tensors)
    missing = directory / f"pytorch_model-00003-of-00003.{suffix}"
    missing.unlink()
    with pytest.raises(DamagedFileError, match=rf"00003-of-00003\.{suffix} is missing"):
        open_checkpoint(directory)


def test_weights_saved_as_parameters_are_weights(
    config: ModelConfig, tensors: dict[str, Tensor], build_bin: BuildBin, tmp_path: Path
) -> None:
    parameters = {name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()}
    convert(open_checkpoint(build_bin(config, parameters, shards=1)), tmp_path / "out", "hf")
    assert_holds(tmp_path / "out", tensors)


@pytest.mark.parametrize("kind", ["sparse", "meta"])
def test_a_tensor_without_elements_in_the_file_is_refused(
    config: ModelConfig, tensors: dict[str, Tensor], build_bin: BuildBin, kind: str
) -> None:
    odd = tensors[HEAD].to_sparse() if kind == "sparse" else tensors[HEAD].to("meta")
    directory = build_bin(config, tensors | {HEAD: odd}, shards=1)
    with pytest.raises(MismatchError, match="is no floating-point tensor"):
        open_checkpoint(directory)


def test_baichuan_1_is_read_and_keeps_its_plain_output_layer(
    config: ModelConfig, tensors: dict[str, Tensor], build_bin: BuildBin, tmp_path: Path
) -> None:
    published = config.to_hf() | {"vocab_size": 64_000, "architectures": ["BaiChuanForCausalLM"]}
    del published["norm_head"], published["position_embedding"]
    large = torch.randn(64_000, config.hidden_size).bfloat16()
    ours = tensors | {"model.embed_tokens.weight": large, HEAD: large.flip(0)}
    buffers = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(2) for i in range(3)}
    directory = build_bin(published, ours | buffers, shards=1)
    assert not open_checkpoint(directory).config.norm_head
    convert(open_checkpoint(directory), tmp_path / "out", "hf")
    assert_holds(tmp_path / "out", ours)
    assert json.loads((tmp_path / "out/config.json").read_text())["norm_head"] is False


def test_a_folded_export_says_so(
    config: ModelConfig,
    tensors: dict[str, Tensor],
    build_bin: BuildBin,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, output = str(build_bin(config, tensors)), str(tmp_path / "out")
    arguments = ["convert", "--input", source, "--output", output, "--to", "hf"]
    assert main([*arguments, "--fold-norm-head"]) == 0
    assert "note: the output weight is written with rows of length 1" in capsys.readouterr().err
    assert json.loads((tmp_path / "out/config.json").read_text())["norm_head"] is False
    written = load_file(tmp_path / "out/model.safetensors")
    assert torch.equal(written[HEAD], unit_rows(tensors[HEAD]).bfloat16())
    assert torch.equal(written["model.norm.weight"], tensors["model.norm.weight"])
    assert main(["verify", output]) == 0
    assert main(["verify", output, "--against", source]) == 1
    out = capsys.readouterr().out
    assert "failed   norm_head is False here and True there" in out
    assert f"failed   {HEAD}: " in out


def test_an_export_names_nothing_that_is_not_in_it(
    config: ModelConfig, tensors: dict[str, Tensor], build_bin: BuildBin, tmp_path: Path
) -> None:
    convert(open_checkpoint(build_bin(config, tensors)), tmp_path / "out", "hf")
    for path in (tmp_path / "out").glob("*.json"):
        assert "auto_map" not in path.read_text(), path
        assert ".py" not in path.read_text(), path


def test_what_llama_cpp_and_vllm_look_for_is_there(
    config: ModelConfig, tensors: dict[str, Tensor], build_bin: BuildBin, tmp_path: Path
) -> None:
    """The keys that their converters read, see conversion/baichuan.py and models/baichuan.py."""
    convert(open_checkpoint(build_bin(config, tensors)), tmp_path / "out", "hf")
    written = json.loads((tmp_path / "out/config.json").read_text())
    for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
        assert isinstance(written[key], int)
    assert written["rms_norm_eps"] == 1e-6
    assert written["model_max_length"] == written["max_position_embeddings"] == 64
    assert written["hidden_act"] == "silu"
    assert written["tie_word_embeddings"] is False
    assert set(written["architectures"]) <= {"BaichuanForCausalLM", "BaiChuanForCausalLM"}
    # llama.cpp takes every file whose name begins and ends so.
    assert [path.name for path in (tmp_path / "out").glob("model*.safetensors")] == [
        "model.safetensors"
    ]
