"""Every command of the documentation runs as it stands, and every message it explains exists."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import bc2_ckpt
import bc2_data
from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.cli import main
from bc2_ckpt.config import PRESETS, ModelConfig
from bc2_ckpt.convert import convert
from bc2_ckpt.formats.megatron_legacy.options import LegacyOptions
from bc2_ckpt.integrity import releases
from bc2_ckpt.integrity.records import FileRecord
from bc2_ckpt.layout import ParameterLayout
from bc2_data import train_tokenizer

_PACKAGE = Path(__file__).parents[1]
_GUIDE = _PACKAGE.parents[1] / "docs/checkpoints.md"
_README = _PACKAGE / "README.md"

TEXT = "the quick brown fox jumps over the lazy dog\n"
SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_layers": 4, "num_heads": 8}


def guide() -> str:
    if not _GUIDE.is_file():
        pytest.skip(f"no documentation at {_GUIDE}: this is not the whole repository")
    return _GUIDE.read_text()


def commands(text: str) -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("bc2-ckpt ")]


def build(build_bin: Callable[..., Path], name: str, preset: str, **changed: int) -> ModelConfig:
    config = replace(PRESETS[preset], **{**SMALL, **changed})
    tensors = {n: torch.randn(s).bfloat16() for n, s in ParameterLayout(config).hf_shapes().items()}
    build_bin(config, tensors, name=name)
    return config


@pytest.fixture
def examples(
    build_bin: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folders that the commands start from, with models that are small but cut alike."""
    monkeypatch.chdir(tmp_path)
    for name, preset in (
        ("Baichuan2-7B-Base", "baichuan2-7b"),
        ("Baichuan2-13B-Base", "baichuan2-13b"),
    ):
        build(build_bin, name, preset, vocab_size=509)
    train_tokenizer([TEXT], tmp_path / "tokenizer", vocab_size=500)
    for name, preset, layers in (
        ("Baichuan2-7B-Chat", "baichuan2-7b", 32),
        ("Baichuan2-13B-Chat", "baichuan2-13b", 40),
    ):
        build(build_bin, name, preset, vocab_size=509, num_layers=layers)
        shutil.copyfile(tmp_path / "tokenizer/tokenizer.model", f"{name}/tokenizer.model")
    source = open_checkpoint(tmp_path / "Baichuan2-7B-Base")
    convert(source, tmp_path / "run/checkpoints/iter_0000100", "torch-dist")
    convert(source, tmp_path / "weight", "megatron-legacy", legacy=LegacyOptions(tp=2))
    (tmp_path / "weight/config.json").unlink()
    (tmp_path / "weight/bc2-checkpoint.json").unlink()
    trained = build(build_bin, "trained", "baichuan2-7b", vocab_size=64_000)
    save_as_training_does(trained, tmp_path)

    published = {path.name: path for path in Path("Baichuan2-7B-Base").glob("*.bin")}
    files = {name: record(path) for name, path in published.items()}
    content = {name: {"size": r.size, "sha256": r.sha256} for name, r in files.items()}
    Path("manifest.json").write_text(json.dumps({"files": content}))
    chat = {path.name: record(path) for path in Path("Baichuan2-13B-Chat").glob("*.bin")}
    monkeypatch.setattr(releases, "RELEASES", {"Baichuan2-13B-Chat": chat})
    monkeypatch.setattr("bc2_ckpt.integrity.downloads.RELEASES", releases.RELEASES)


def record(path: Path) -> FileRecord:
    content = path.read_bytes()
    return FileRecord(len(content), hashlib.sha256(content).hexdigest())


def save_as_training_does(config: ModelConfig, folder: Path) -> None:
    convert(open_checkpoint(folder / "trained"), folder / "plain", "megatron-legacy")
    content = torch.load(folder / "plain/release/mp_rank_00/model_optim_rng.pt", weights_only=True)
    arguments = argparse.Namespace(
        hidden_size=config.hidden_size,
        ffn_hidden_size=config.intermediate_size,
        num_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        position_embedding_type="rope",
        padded_vocab_size=64_000,
        make_vocab_size_divisible_by=128,
        tensor_model_parallel_size=1,
    )
    content |= {"args": arguments, "iteration": 100, "optimizer": {"step": 100}}
    rank = folder / "ascendspeed-run/iter_0000100/mp_rank_00"
    rank.mkdir(parents=True)
    torch.save(content, rank / "model_optim_rng.pt")
    (folder / "ascendspeed-run/latest_checkpointed_iteration.txt").write_text("100")


@pytest.mark.usefixtures("examples")
def test_the_commands_of_the_guide_run_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gguf", reason="gguf is not installed (pip install 'bc2-ckpt[gguf]')")
    found = commands(guide())
    assert len(found) > 20
    for command in found:
        assert main(command) == 0, f"{shlex.join(command)}: {capsys.readouterr().err}"


@pytest.mark.usefixtures("examples")
def test_the_commands_of_the_readme_run_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    found = commands(_README.read_text())
    assert len(found) > 4
    for command in found:
        assert main(command) == 0, f"{shlex.join(command)}: {capsys.readouterr().err}"


def test_every_message_that_the_guide_explains_is_one_of_ours() -> None:
    sources = [
        path.read_text()
        for package in (bc2_ckpt, bc2_data)
        for path in Path(str(package.__file__)).parent.rglob("*.py")
    ]
    # A string that goes on in the next line.
    code = re.sub(r'"\s*\n\s*f?"', "", "\n".join(sources))
    table = guide().split("## When something is wrong")[1]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    messages = [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]
    assert len(messages) > 25
    assert [message for message in messages if message not in code] == []
