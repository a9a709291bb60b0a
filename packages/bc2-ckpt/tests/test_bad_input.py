"""Every bad input ends in one clear error with exit status 2, and leaves nothing behind."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.cli import main
from bc2_ckpt.config import ModelConfig
from bc2_ckpt.convert import convert
from bc2_ckpt.errors import CkptError

HTML = b"<!doctype html>\n<html class=''><head>" + b" " * 5000
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:ed5f86\nsize 9973568983\n"
SHARD = "pytorch_model-00002-of-00003.bin"
INDEX = "pytorch_model.bin.index.json"

Fails = Callable[[Path, str, str], None]


@pytest.fixture
def position_embedding() -> str:
    return "rotary"


@pytest.fixture
def fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Fails:
    """Returns a function that converts a directory and expects an error and a hint."""

    def check(directory: Path, message: str, hint: str) -> None:
        before = sorted(tmp_path.rglob("*"))
        output = str(tmp_path / "out")
        for to in ("hf", "torch-dist"):
            status = main(["convert", "--input", str(directory), "--output", output, "--to", to])
            error = capsys.readouterr().err
            assert status == 2, error
            assert error.startswith("error: ")
            assert "unexpected" not in error
            assert message in error
            assert f"hint: {hint}" in error if hint else "hint:" not in error
        assert sorted(tmp_path.rglob("*")) == before

    return check


@pytest.fixture
def hf(config: ModelConfig, tensors: dict[str, Tensor], build_bin: Callable[..., Path]) -> Path:
    return build_bin(config, tensors)


@pytest.fixture
def dist(hf: Path, tmp_path: Path) -> Path:
    convert(open_checkpoint(hf), tmp_path / "dist", "torch-dist")
    return tmp_path / "dist"


@pytest.fixture
def safetensors(hf: Path, tmp_path: Path) -> Path:
    convert(open_checkpoint(hf), tmp_path / "st", "hf")
    return tmp_path / "st"


def cut(path: Path, part: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])


PLACEHOLDERS = [
    (HTML, "is a web page", "a download through a /blob/ URL"),
    (LFS, "is a Git LFS pointer", "run `git lfs pull`"),
    (b"", "is empty", "download or copy it again"),
]
GARBAGE = [
    (content, "cannot be read: it is cut short or damaged", "download or copy it again")
    for content in (b"PK\x03\x04 not really", b"\x00" * 99)
]


@pytest.mark.parametrize(("content", "message", "hint"), PLACEHOLDERS + GARBAGE)
def test_something_else_in_place_of_a_shard(
    hf: Path, fails: Fails, content: bytes, message: str, hint: str
) -> None:
    (hf / SHARD).write_bytes(content)
    fails(hf, f"{SHARD} {message}", hint)


@pytest.mark.parametrize(("content", "message", "hint"), PLACEHOLDERS + GARBAGE)
def test_something_else_in_place_of_safetensors(
    safetensors: Path, fails: Fails, content: bytes, message: str, hint: str
) -> None:
    (safetensors / "model.safetensors").write_bytes(content)
    fails(safetensors, f"model.safetensors {message}", hint)


@pytest.mark.parametrize("name", [".metadata", "common.pt", "__0_0.distcp"])
@pytest.mark.parametrize(("content", "message", "hint"), PLACEHOLDERS)
def test_something_else_in_place_of_a_file_of_torch_dist(
    dist: Path, fails: Fails, name: str, content: bytes, message: str, hint: str
) -> None:
    (dist / name).write_bytes(content)
    fails(dist, f"{name} {message}", hint)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.model", "tokenizer_config.json", INDEX])
def test_a_web_page_in_place_of_a_small_file(hf: Path, fails: Fails, name: str) -> None:
    (hf / name).write_bytes(HTML)
    fails(hf, f"{name} is a web page", "a download through")


@pytest.mark.parametrize("part", [0.3, 0.9, 0.999])
def test_a_truncated_shard(hf: Path, fails: Fails, part: float) -> None:
    cut(hf / SHARD, part)
    fails(hf, f"{SHARD} cannot be read: it is cut short", "download or copy it again")


@pytest.mark.parametrize("part", [0.3, 0.9, 0.999])
def test_truncated_safetensors(safetensors: Path, fails: Fails, part: float) -> None:
    cut(safetensors / "model.safetensors", part)
    fails(safetensors, "model.safetensors cannot be read: it is cut short", "download")


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp", "common.pt"])
@pytest.mark.parametrize("part", [0.3, 0.99])
def test_truncated_torch_dist(dist: Path, fails: Fails, name: str, part: float) -> None:
    cut(dist / name, part)
    fails(dist, "cut short", "download or copy" if name == "common.pt" else "copy the checkpoint")


def test_a_missing_shard(hf: Path, fails: Fails) -> None:
    (hf / SHARD).unlink()
    fails(hf, f"{SHARD} is missing", "download or copy it again")


@pytest.mark.parametrize("name", ["__0_0.distcp", "common.pt"])
def test_a_missing_file_of_torch_dist(dist: Path, fails: Fails, name: str) -> None:
    (dist / name).unlink()
    fails(dist, f"{name} is missing", "download or copy it again")


def test_an_index_that_leads_outside(hf: Path, fails: Fails) -> None:
    (hf / INDEX).write_text(json.dumps({"weight_map": {"lm_head.weight": "../x.bin"}}))
    fails(hf, "'../x.bin'", "")


def test_an_index_without_a_map(hf: Path, fails: Fails) -> None:
    (hf / INDEX).write_text("{}")
    fails(hf, "no weight_map", "download or copy it again")


def edit_shard(hf: Path, edit: Callable[[dict[str, object]], object]) -> None:
    content = torch.load(hf / SHARD)
    edit(content)
    torch.save(content, hf / SHARD)


def test_a_missing_tensor(hf: Path, fails: Fails) -> None:
    edit_shard(hf, lambda content: content.pop("model.layers.0.input_layernorm.weight"))
    fails(hf, "lacks a tensor that this model has: 'model.layers.0.input_layernorm", "a shard may")


def test_a_surplus_tensor(hf: Path, fails: Fails) -> None:
    edit_shard(hf, lambda content: content.update({"model.nrom.weight": torch.ones(2)}))
    fails(hf, "that this model does not have: 'model.nrom.weight'", "did you mean 'model.norm")


def test_a_renamed_tensor_is_named_with_the_missing_one(hf: Path, fails: Fails) -> None:
    name = "model.layers.0.input_layernorm.weight"
    edit_shard(hf, lambda content: content.update({f"x.{name}": content.pop(name)}))
    fails(hf, f"'x.{name}'", f"did you mean '{name}'?")


def test_a_shape_against_the_config(hf: Path, config: ModelConfig, fails: Fails) -> None:
    content = json.loads((hf / "config.json").read_text()) | {"vocab_size": 41}
    (hf / "config.json").write_text(json.dumps(content))
    fails(hf, f"has shape (37, {config.hidden_size}), but the config asks for (41", "give the")


def test_too_many_layers_in_the_config(hf: Path, fails: Fails) -> None:
    content = json.loads((hf / "config.json").read_text()) | {"num_hidden_layers": 4}
    (hf / "config.json").write_text(json.dumps(content))
    fails(hf, "lacks 7 tensors", "a shard may be missing, or config.json is of a larger model")


def test_a_shape_of_torch_dist_against_the_config(dist: Path, fails: Fails) -> None:
    content = json.loads((dist / "config.json").read_text()) | {"vocab_size": 41}
    (dist / "config.json").write_text(json.dumps(content))
    fails(dist, "'embedding.word_embeddings.weight' has shape (37", "give the config")


def test_another_model(hf: Path, fails: Fails) -> None:
    (hf / "config.json").write_text('{"model_type": "llama"}')
    fails(hf, "model_type is 'llama', not 'baichuan'", "bc2 converts")


def test_integers_are_no_weights(hf: Path, fails: Fails) -> None:
    edit_shard(hf, lambda content: content.update({"model.x": torch.ones(2, dtype=torch.int8)}))
    fails(hf, "'model.x' is no floating-point tensor", "")


def test_a_file_that_holds_no_names(hf: Path, fails: Fails) -> None:
    torch.save([torch.ones(2)], hf / SHARD)
    fails(hf, "holds no tensors by name", "")


def test_a_tensor_in_two_files(hf: Path, tensors: dict[str, Tensor], fails: Fails) -> None:
    for path in hf.glob("pytorch_model*"):
        path.unlink()
    save_file(tensors, hf / "a.safetensors")
    save_file({"lm_head.weight": tensors["lm_head.weight"]}, hf / "b.safetensors")
    fails(hf, "'lm_head.weight' stands in more than one file", "")


def test_a_hole_in_torch_dist(dist: Path, tmp_path: Path) -> None:
    metadata: Metadata = pickle.loads((dist / ".metadata").read_bytes())
    metadata.state_dict_metadata["decoder.layers.mlp.linear_fc1.weight"].chunks.pop()
    (dist / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(CkptError, match="not stored as a whole"):
        convert(open_checkpoint(dist), tmp_path / "out", "hf")
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_no_checkpoint(tmp_path: Path, fails: Fails) -> None:
    fails(tmp_path, "holds no checkpoint", "")
    fails(tmp_path / "absent", "is missing, not a checkpoint directory", "")
    (tmp_path / "checkpoints").mkdir()
    fails(tmp_path, "holds no checkpoint", f"did you mean {tmp_path}/checkpoints?")


def test_a_run_whose_checkpoints_are_all_unfinished(tmp_path: Path, fails: Fails) -> None:
    (tmp_path / "run/iter_0000001").mkdir(parents=True)
    fails(tmp_path / "run", "was written to its end", "")
