"""Configurations and data of small runs for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bc2_data.indexed import IndexedWriter, bin_path, idx_path
from reference_model import TrainingRecipe


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
