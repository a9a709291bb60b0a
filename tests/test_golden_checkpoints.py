"""The official models in every checkpoint format: megatron-core computes the official results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import checkpoint_jobs
import jobs
from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.convert import convert
from bc2_ckpt.formats.megatron_legacy.options import LegacyOptions
from parity import assert_logits_close
from reference_model import TrainingRecipe
from runs import run_values, write_instruction_rows

if TYPE_CHECKING:
    from conftest import Golden
    from workers import WorkerGroup

Workers = Callable[[int], "WorkerGroup"]

LAYOUTS = {
    "TP1": (1, {}),
    "TP2": (2, {"tensor": 2}),
    "PP2": (2, {"pipeline": 2}),
    "TP2xPP2": (4, {"tensor": 2, "pipeline": 2}),
}


@pytest.fixture
def distributed(golden: Golden, tmp_path: Path) -> Path:
    """The golden model by way of megatron-legacy, as torch-dist."""
    options = LegacyOptions(tp=2, pp=2)
    source = open_checkpoint(golden.checkpoint)
    convert(source, tmp_path / "legacy", "megatron-legacy", legacy=options)
    convert(open_checkpoint(tmp_path / "legacy"), tmp_path / "dist", "torch-dist")
    return tmp_path / "dist"


def values(golden: Golden, tmp_path: Path, parallel: dict[str, int]) -> dict[str, Any]:
    recipe = TrainingRecipe.load(golden.recipe)
    return run_values(golden.checkpoint, tmp_path / "rows", recipe, parallel=parallel)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_loss_after_plain_loading(
    golden: Golden, workers: Workers, distributed: Path, tmp_path: Path, layout: str
) -> None:
    size, parallel = LAYOUTS[layout]
    write_instruction_rows(tmp_path / "rows", golden["traj_tokens"].flatten(0, 1))
    run = values(golden, tmp_path, parallel)
    expected = golden["traj_loss"][0].item()
    for loss in workers(size).run(checkpoint_jobs.evaluate_distributed, run, str(distributed)):
        assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("size", [1, 2])
def test_logits_after_plain_loading(
    golden: Golden, workers: Workers, distributed: Path, tmp_path: Path, size: int
) -> None:
    run = values(golden, tmp_path, {"tensor": size})
    for logits in workers(size).run(
        checkpoint_jobs.logits_distributed, run, str(distributed), golden["input_ids"]
    ):
        assert_logits_close(logits, golden["logits_train"])


def test_logits_of_a_run_that_starts_from_each_format(
    golden: Golden, workers: Workers, distributed: Path, tmp_path: Path
) -> None:
    for directory in (distributed, tmp_path / "legacy"):
        run = values(golden, tmp_path, {"tensor": 2})
        run["model"]["init"] = str(directory)
        for logits in workers(2).run(jobs.logits, run, golden["input_ids"], None):
            assert_logits_close(logits, golden["logits_train"])
