"""`bc2-train run` on the deepspeed engine from outside, and adapters from training to merging."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_model.hf import BaichuanForCausalLM
from bc2_model.hf.loading import load_model
from parity import random_tokens
from runs import ITERATIONS, finished_losses, make_inputs, run_command

DEEPSPEED = ("engine=deepspeed", "parallel.tensor=1", "precision=float32")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def call(command: list[str], where: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=where, capture_output=True, text=True, timeout=300, check=False
    )


def succeed(command: list[str]) -> str:
    result = call(command)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def tool(name: str, *arguments: str | Path) -> list[str]:
    return [str(Path(sys.executable).parent / name), *map(str, arguments)]


def logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        output: Tensor = model(input_ids=random_tokens(251, 2, 48)).logits
    return output


@pytest.fixture(scope="module")
def whole_run(inputs: Path) -> Path:
    run_dir = inputs / "whole"
    extensions = inputs / "extensions"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TORCH_EXTENSIONS_DIR", str(extensions))
        succeed(run_command(inputs, run_dir, *DEEPSPEED, "deepspeed.zero_stage=3"))
    assert not extensions.exists(), "DeepSpeed has compiled something"
    return run_dir


def test_a_run_leaves_checkpoints_that_resume_with_the_same_losses(
    inputs: Path, whole_run: Path
) -> None:
    before = finished_losses(whole_run)
    assert [iteration for iteration, _, _ in before] == list(range(1, ITERATIONS + 1))
    checkpoints = whole_run / "checkpoints"
    names = sorted(path.name for path in checkpoints.glob("iter_*"))
    assert names == ["iter_0000003", "iter_0000006", "iter_0000008"]
    assert not list(checkpoints.rglob("*.pt")), "something was pickled"

    shutil.rmtree(checkpoints / "iter_0000008")
    output = succeed(run_command(inputs, whole_run, *DEEPSPEED, "deepspeed.zero_stage=3"))
    assert "iter_0000006, iteration 6" in output
    assert finished_losses(whole_run) == before


def test_a_checkpoint_is_a_hugging_face_directory(inputs: Path, whole_run: Path) -> None:
    newest = whole_run / "checkpoints" / "iter_0000008"
    output = inputs / "exported"
    checkpoints = newest.parent
    succeed(tool("bc2-ckpt", "convert", "--input", checkpoints, "--output", output, "--to", "hf"))
    assert torch.equal(logits(load_model(output)), logits(load_model(newest)))
    before, after = open_checkpoint(inputs / "hf"), open_checkpoint(checkpoints)
    assert after.source == newest
    for name in before.tensors():
        assert not torch.equal(before.read(name), after.read(name)), name


@pytest.fixture(scope="module")
def adapter_run(inputs: Path) -> Path:
    pytest.importorskip("peft", reason="the extra bc2-train[lora] is not installed")
    run_dir = inputs / "adapters"
    options = ("lora.rank=4", "lora.dropout=0.1", "optimizer.lr=0.01", "checkpoint.interval=0")
    succeed(run_command(inputs, run_dir, *DEEPSPEED, "deepspeed.zero_stage=2", *options))
    return run_dir


def test_adapters_train_and_merge(inputs: Path, adapter_run: Path) -> None:
    import peft

    losses = [loss for _, loss, _ in finished_losses(adapter_run)]
    assert losses[-1] < losses[0] - 0.01
    newest = adapter_run / "checkpoints" / f"iter_{ITERATIONS:07d}"
    assert not list(newest.glob("model*.safetensors")), "the frozen weights were saved"

    merged = inputs / "merged"
    output = succeed(tool("bc2-train", "merge-lora", adapter_run, "--output", merged))
    assert str(newest) in output
    frozen: BaichuanForCausalLM = load_model(inputs / "hf")
    before = logits(frozen)
    adapted = peft.PeftModel.from_pretrained(frozen, newest)
    assert (logits(adapted) - before).abs().max() > 1e-2
    assert torch.allclose(logits(load_model(merged)), logits(adapted), atol=1e-5)
    base, result = open_checkpoint(inputs / "hf"), open_checkpoint(merged)
    same = {name for name in base.tensors() if torch.equal(base.read(name), result.read(name))}
    assert same == {name for name in base.tensors() if "norm" in name or "layers" not in name}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["bc2-ckpt", "convert", "--input", "adapters/checkpoints", "--to", "hf"], "merge-lora"),
        (["bc2-train", "merge-lora", "whole"], "trained no adapters"),
        (["bc2-train", "merge-lora", "hf"], "no run directory"),
    ],
)
def test_what_cannot_be_merged_or_converted_says_what_can(
    inputs: Path, whole_run: Path, adapter_run: Path, command: list[str], message: str
) -> None:
    result = call(tool(*command, "--output", "nothing"), where=inputs)
    assert result.returncode == 2
    assert message in result.stderr
    assert not (inputs / "nothing").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["parallel.tensor=2"], "the keys of parallel are about the megatron engine"),
        (["deepspeed.zero_stage=4"], "deepspeed.zero_stage is 4"),
        (["deepspeed.zero_stage=0", "deepspeed.offload=optimizer"], "needs a ZeRO stage above 0"),
        (["train.recompute=selective"], "train.recompute selective"),
        (["lora.rank=4", "model.init=random"], "model.init is random"),
        (["lora.targets=[W_pack, q_proj]"], "lora.targets is 'q_proj'"),
        (["lora.rank=4", "engine=megatron"], "lora is about the deepspeed engine"),
    ],
)
def test_wrong_input_stops_before_anything_is_written(
    inputs: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    result = call(run_command(inputs, tmp_path / "run", *DEEPSPEED, *options))
    assert result.returncode == 2
    assert message in result.stderr
    assert not (tmp_path / "run").exists()
