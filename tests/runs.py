"""Configurations and data of small runs for tests."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bc2_data.datasets import manifest_path
from bc2_data.indexed import IndexedWriter, bin_path, idx_path
from bc2_data.manifest import Manifest, TokenizerUse
from conftest import write_checkpoint
from reference_model import TrainingRecipe

TRAIN = str(Path(sys.executable).parent / "bc2-train")


def write_instruction_rows(prefix: Path, tokens: torch.Tensor) -> None:
    """Writes rows (n, length) as unpacked instruction data of which every token is trained."""
    rows = list(tokens.numpy().astype(np.int32))
    ones = [np.ones_like(row) for row in rows]
    for key, arrays in (("input_ids", rows), ("labels", rows), ("attention_mask", ones)):
        write_dataset(Path(f"{prefix}_packed_{key}_document"), arrays)


def write_dataset(prefix: Path, rows: Sequence[np.ndarray]) -> None:
    """Writes rows of int32 ids as one IndexedDataset."""
    with IndexedWriter(bin_path(prefix), idx_path(prefix)) as writer:
        writer.add(rows)


def write_manifest(prefix: Path, *, tokenizer_sha256: str) -> None:
    """Writes the manifest of a dataset about which nothing but its tokenizer matters."""
    used = TokenizerUse(
        path="elsewhere/tokenizer.model",
        sha256=tokenizer_sha256,
        vocab_size=251,
        engine="sentencepiece",
        special_tokens="escape",
        special_literals={},
    )
    manifest = Manifest(
        bc2_data="0",
        kind="pretrain",
        options={},
        inputs=[],
        tokenizer=used,
        outputs=[],
        documents=0,
        tokens=0,
        trained_tokens=None,
        dropped={},
        truncated={},
    )
    manifest_path(prefix).write_text(manifest.to_json())


def run_values(
    model: Path, prefix: Path | str, recipe: TrainingRecipe, **groups: Any
) -> dict[str, Any]:
    """Returns the configuration of a run in the reference's settings."""
    values = {
        "model": {"config": str(model), "init": str(model)},
        "data": {"kind": "instruction", "prefix": str(prefix), "seq_length": 64, "shuffle": False},
        "batch": {"micro": 2, "global": 4},
        "optimizer": {
            "lr": recipe.lr,
            "betas": list(recipe.betas),
            "eps": recipe.eps,
            "weight_decay": recipe.weight_decay,
            "clip": recipe.clip,
        },
        "precision": "float32",
        "device": "cpu",
        "train": {"iterations": 20},
        "run": {"dir": str(Path(prefix).parent / "run")},
    }
    for name, group in groups.items():
        values[name] = {**values.get(name, {}), **group}
    return values


ITERATIONS = 8


def make_inputs(folder: Path) -> Path:
    """Fills a folder with a checkpoint `hf` and pretraining data `text_document`."""
    write_checkpoint(folder / "hf", "alibi")
    draw = np.random.default_rng(0)
    rows = [draw.integers(3, 251, 200).astype(np.int32) for _ in range(60)]
    write_dataset(folder / "text_document", rows)
    return folder


def run_command(inputs: Path, run_dir: Path, *options: str) -> list[str]:
    """Returns a command line of `bc2-train run` on two processes; options are ``KEY=VALUE``."""
    keys = {
        "model.config": inputs / "hf",
        "model.init": inputs / "hf",
        "data.prefix": inputs / "text_document",
        "data.seq_length": 64,
        "batch.micro": 2,
        "parallel.tensor": 2,
        "train.iterations": ITERATIONS,
        "checkpoint.interval": 3,
        "device": "cpu",
        "run.dir": run_dir,
    }
    settings = [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]
    settings += [part for option in options for part in ("--set", option)]
    return [TRAIN, "run", "tiny-13b", "--nproc-per-node", "2", *settings]


def finished_losses(run_dir: Path) -> list[tuple[int, float, float]]:
    """Returns iteration, loss and gradient norm of every step that a run has written."""
    with open(run_dir / "metrics.jsonl") as file:
        steps = [json.loads(line) for line in file if line.endswith("\n")]
    return [(step["iteration"], step["loss"], step["grad_norm"]) for step in steps]


def children(process: subprocess.Popen[Any]) -> list[int]:
    """Returns the process ids of a run's workers, by rank."""
    listing = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(number) for number in listing.split()]


def wait_until(condition: Callable[[], bool], timeout: float = 180) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)
