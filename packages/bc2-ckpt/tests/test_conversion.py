"""Conversions keep every bit, and carry what belongs to a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.config import ModelConfig
from bc2_ckpt.convert import convert
from bc2_ckpt.formats.hf import writer as hf_writer
from bc2_ckpt.formats.protocol import CheckpointReader
from bc2_data.errors import Bc2Error

BuildBin = Callable[..., Path]


def assert_equal(reader: CheckpointReader, tensors: dict[str, Tensor]) -> None:
    """Asserts equal names, shapes, dtypes and bits, in the order of the model."""
    assert list(reader.tensors()) == list(tensors)
    for name, tensor in tensors.items():
        info = reader.tensors()[name]
        assert (info.shape, info.dtype) == (tuple(tensor.shape), tensor.dtype), name
        read = reader.read(name)
        assert read.dtype == tensor.dtype
        assert torch.equal(read, tensor), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("shards", [1, 3])
def test_hf_to_torch_dist_to_hf(
    config: ModelConfig,
    tensors: dict[str, Tensor],
    build_bin: BuildBin,
    tmp_path: Path,
    shards: int,
    dtype: torch.dtype,
) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    source = open_checkpoint(build_bin(config, tensors, shards))
    assert source.format == "hf"
    assert_equal(source, tensors)

    convert(source, tmp_path / "dist", "torch-dist")
    middle = open_checkpoint(tmp_path / "dist")
    assert middle.format == "torch-dist"
    assert_equal(middle, tensors)

    convert(middle, tmp_path / "back", "hf")
    back = open_checkpoint(tmp_path / "back")
    assert_equal(back, tensors)
    assert back.config == replace(config, dtype=str(dtype).removeprefix("torch."))
    assert load_file(tmp_path / "back/model.safetensors").keys() == tensors.keys()
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == [
        "bc2-checkpoint.json",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.model",
        "tokenizer_config.json",
    ]


@pytest.mark.parametrize("to", ["hf", "torch-dist"])
def test_small_files_are_carried_over_without_auto_map(
    config: ModelConfig, tensors: dict[str, Tensor], build_bin: BuildBin, tmp_path: Path, to: str
) -> None:
    source = build_bin(config, tensors)
    convert(open_checkpoint(source), tmp_path / "out", to)
    for name in ("tokenizer.model", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    assert json.loads((tmp_path / "out/config.json").read_text()) == config.to_hf()
    tokenizer = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert tokenizer == {"add_bos_token": False}


def test_shards_stay_below_their_limit_and_the_index_leads_to_each_tensor(
    config: ModelConfig, tensors: dict[str, Tensor], build_bin: BuildBin, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    hf_writer.write(open_checkpoint(build_bin(config, tensors)), output, max_shard_bytes=4000)
    index = json.loads((output / "model.safetensors.index.json").read_text())
    files = sorted(output.glob("model-*.safetensors"))
    assert len(files) > 2
    assert set(index["weight_map"].values()) == {path.name for path in files}
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())
    for path in files:
        content = load_file(path)
        assert len(content) == 1 or sum(t.nbytes for t in content.values()) <= 4000
        for name in content:
            assert index["weight_map"][name] == path.name
    assert_equal(open_checkpoint(output), tensors)


def test_safetensors_shards_need_no_index(
    config: ModelConfig, tensors: dict[str, Tensor], build_bin: BuildBin
) -> None:
    directory = build_bin(config, tensors)
    for path in directory.glob("pytorch_model*"):
        path.unlink()
    names = list(tensors)
    for i in range(2):
        part = {name: tensors[name] for name in names[i::2]}
        save_file(part, directory / f"model-0000{i + 1}-of-00002.safetensors")
    assert_equal(open_checkpoint(directory), tensors)


def test_a_bin_file_of_old_torch_and_buffers_of_old_releases_are_read(
    config: ModelConfig, tensors: dict[str, Tensor], build_bin: BuildBin
) -> None:
    directory = build_bin(config, tensors, shards=1)
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}
    path = directory / "pytorch_model.bin"
    torch.save(tensors | buffer, path, _use_new_zipfile_serialization=False)
    assert_equal(open_checkpoint(directory), tensors)


def test_views_into_one_storage_are_written_alone(
    config: ModelConfig, tensors: dict[str, Tensor], build_bin: BuildBin, tmp_path: Path
) -> None:
    storage = torch.cat([tensor.flatten() for tensor in tensors.values()])
    sizes = [tensor.numel() for tensor in tensors.values()]
    views = {
        name: part.view(tensors[name].shape)
        for name, part in zip(tensors, storage.split(sizes), strict=True)
    }
    source = open_checkpoint(build_bin(config, views, shards=1))
    for to in ("hf", "torch-dist"):
        convert(source, tmp_path / f"out-{to}", to)
        assert_equal(open_checkpoint(tmp_path / f"out-{to}"), tensors)
    overhead_of_a_chunk = 2500
    written = (tmp_path / "out-torch-dist/__0_0.distcp").stat().st_size
    assert written < storage.nbytes + 2 * len(tensors) * overhead_of_a_chunk


def test_layers_of_different_dtypes_do_not_fit_into_one_tensor(
    config: ModelConfig, tensors: dict[str, Tensor], build_bin: BuildBin, tmp_path: Path
) -> None:
    name = "model.layers.1.input_layernorm.weight"
    mixed = tensors | {name: tensors[name].float()}
    source = open_checkpoint(build_bin(config, mixed))
    with pytest.raises(Bc2Error, match="layers differ in dtype"):
        convert(source, tmp_path / "dist", "torch-dist")
    assert not (tmp_path / "dist").exists()
    convert(source, tmp_path / "out", "hf")
    assert_equal(open_checkpoint(tmp_path / "out"), mixed)


def test_weights_without_a_config_need_one_named(
    config: ModelConfig, tensors: dict[str, Tensor], build_bin: BuildBin, tmp_path: Path
) -> None:
    directory = build_bin(config, tensors)
    convert(open_checkpoint(directory), tmp_path / "dist", "torch-dist")
    for path in (directory, tmp_path / "dist"):
        (path / "config.json").unlink()
        with pytest.raises(Bc2Error, match=r"config"):
            open_checkpoint(path)
        assert_equal(open_checkpoint(path, config), tensors)


def test_nothing_is_overwritten_unasked_and_never_the_source(
    config: ModelConfig, tensors: dict[str, Tensor], build_bin: BuildBin, tmp_path: Path
) -> None:
    directory = build_bin(config, tensors)
    source = open_checkpoint(directory)
    output = tmp_path / "out"
    output.mkdir()
    (output / "mine").touch()
    with pytest.raises(Bc2Error, match="exists already"):
        convert(source, output, "torch-dist")
    assert [path.name for path in output.iterdir()] == ["mine"]
    convert(source, output, "torch-dist", overwrite=True)
    assert not (output / "mine").exists()
    for place in (directory, directory.parent):
        with pytest.raises(Bc2Error, match="would replace"):
            convert(source, place, "torch-dist", overwrite=True)
    assert_equal(open_checkpoint(directory), tensors)


def test_golden_checkpoints_come_back_bit_by_bit(golden: Path, tmp_path: Path) -> None:
    shards = [torch.load(path, weights_only=True) for path in golden.glob("*.bin")]
    original = {name: tensor for shard in shards for name, tensor in shard.items()}
    convert(open_checkpoint(golden), tmp_path / "dist", "torch-dist")
    convert(open_checkpoint(tmp_path / "dist"), tmp_path / "hf", "hf")
    back = load_file(tmp_path / "hf/model.safetensors")
    assert back.keys() == original.keys()
    assert all(torch.equal(back[name], original[name]) for name in original)
    assert ModelConfig.load(tmp_path / "hf") == ModelConfig.load(golden)
