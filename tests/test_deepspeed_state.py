"""State of the deepspeed engine: saving, resuming anywhere, bad gradients, evaluation, 16 bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import deepspeed_jobs
import jobs
from conftest import write_checkpoint
from parity import random_tokens
from reference_model import TrainingRecipe
from runs import run_values, write_instruction_rows
from workers import WorkerGroup

Workers = Callable[[int], WorkerGroup]

STEPS = 6
SAVED = 3


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint `hf`, of whose sizes two processes divide none, and `rows`."""
    folder = tmp_path_factory.mktemp("inputs")
    sizes = {"hidden_size": 65, "num_heads": 5, "intermediate_size": 131}
    write_checkpoint(folder / "hf", "alibi", **sizes)
    write_instruction_rows(folder / "rows", random_tokens(251, STEPS * 4, 65))
    return folder


def values(inputs: Path, stage: int, **groups: Any) -> dict[str, Any]:
    config = run_values(
        inputs / "hf",
        inputs / "rows",
        TrainingRecipe(),
        batch={"micro": 1},
        train={"iterations": STEPS},
        deepspeed={"zero_stage": stage},
        **groups,
    )
    return {**config, "engine": "deepspeed"}


def losses(results: list[tuple[float, float]]) -> list[float]:
    return [loss for loss, _ in results]


@pytest.mark.parametrize(
    ("stage", "offload", "asynchronous"),
    [
        *((stage, "none", False) for stage in range(4)),
        *((stage, "none", True) for stage in (0, 3)),
        *((stage, "optimizer", False) for stage in (1, 3)),
    ],
)
def test_a_resumed_run_has_the_same_losses_bit_for_bit(
    inputs: Path, workers: Workers, tmp_path: Path, stage: int, offload: str, asynchronous: bool
) -> None:
    config = values(inputs, stage, checkpoint={"asynchronous": asynchronous})
    config["deepspeed"]["offload"] = offload
    saved = str(tmp_path / "saved")
    whole = workers(2).run(jobs.train_and_save, config, saved, SAVED)[0]
    resumed = workers(2).run(jobs.load_and_train, config, saved)[0]
    assert resumed == whole[SAVED:]


@pytest.mark.parametrize(
    ("before", "after"),
    [((2, 3), (1, 0)), ((1, 0), (2, 2)), ((2, 2), (2, 3)), ((1, 3), (2, 1)), ((2, 1), (1, 3))],
)
def test_a_run_resumes_at_another_world_size_and_stage(
    inputs: Path,
    workers: Workers,
    tmp_path: Path,
    before: tuple[int, int],
    after: tuple[int, int],
) -> None:
    saved = str(tmp_path / "saved")
    size, stage = before
    whole = workers(size).run(jobs.train_and_save, values(inputs, stage), saved, SAVED)[0]
    size, stage = after
    resumed = workers(size).run(jobs.load_and_train, values(inputs, stage), saved)[0]
    assert losses(resumed) == pytest.approx(losses(whole[SAVED:]), rel=1e-6)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_sixteen_bits_follow_float32_and_resume_bit_for_bit(
    inputs: Path, workers: Workers, tmp_path: Path, stage: int, precision: str
) -> None:
    expected = workers(2).run(jobs.train, values(inputs, 1))[0]
    config = {**values(inputs, stage), "precision": precision}
    saved = str(tmp_path / "saved")
    whole = workers(2).run(jobs.train_and_save, config, saved, SAVED)[0]
    assert losses(whole) == pytest.approx(losses(expected), rel=2e-2)
    assert [norm for _, norm in whole] == pytest.approx([norm for _, norm in expected], rel=5e-2)
    assert workers(2).run(jobs.load_and_train, config, saved)[0] == whole[SAVED:]


@pytest.mark.parametrize(
    ("stage", "precision"),
    [
        *((stage, "float32") for stage in range(4)),
        *((stage, "bfloat16") for stage in range(1, 4)),
        *((stage, "float16") for stage in (0, 1, 3)),
    ],
)
def test_a_step_with_a_bad_gradient_changes_nothing(
    inputs: Path, workers: Workers, stage: int, precision: str
) -> None:
    config = {**values(inputs, stage), "precision": precision}
    clean = workers(2).run(jobs.train, config)[0]
    poisoned = workers(2).run(deepspeed_jobs.train_with_a_bad_gradient, config, 2)[0]
    assert [step[:2] for step in poisoned[:2]] == clean[:2]
    assert poisoned[2][0] == clean[2][0]
    assert math.isnan(poisoned[2][1])
    assert [skipped for _, _, skipped in poisoned] == [step == 2 for step in range(STEPS)]
    # Training goes on, from the parameters before the bad step.
    assert all(math.isfinite(loss) for loss, _, _ in poisoned[3:])
    assert poisoned[3][0] != clean[3][0]


def test_adapters_are_the_same_at_every_stage_and_resume_bit_for_bit(
    inputs: Path, workers: Workers, tmp_path: Path
) -> None:
    pytest.importorskip("peft", reason="the extra bc2-train[lora] is not installed")
    lora = {"rank": 3}
    frozen = losses(workers(2).run(jobs.train, values(inputs, 2))[0])
    runs = []
    for stage in range(4):
        config = values(inputs, stage, lora=lora, checkpoint={"asynchronous": True})
        saved = str(tmp_path / f"saved{stage}")
        whole = workers(2).run(jobs.train_and_save, config, saved, SAVED)[0]
        assert workers(2).run(jobs.load_and_train, config, saved)[0] == whole[SAVED:]
        runs.append(losses(whole))
    for run in runs:
        assert run[0] == pytest.approx(frozen[0], rel=1e-6), "a new adapter changes something"
        assert run[1:] != frozen[1:]
        assert run == pytest.approx(runs[0], rel=1e-6)


def test_a_checkpoint_of_other_parameters_is_refused(
    inputs: Path, workers: Workers, tmp_path: Path
) -> None:
    pytest.importorskip("peft", reason="the extra bc2-train[lora] is not installed")
    saved = str(tmp_path / "saved")
    workers(1).run(jobs.train_and_save, values(inputs, 1), saved, SAVED)
    message = workers(1).run(deepspeed_jobs.refusal, values(inputs, 1, lora={"rank": 3}), saved)
    assert "holds other parameters than this run trains" in message[0]
    (tmp_path / "other").mkdir()
    message = workers(1).run(deepspeed_jobs.refusal, values(inputs, 1), str(tmp_path / "other"))
    assert "is no checkpoint of the deepspeed engine" in message[0]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_learning_rate_is_that_of_the_step(inputs: Path, workers: Workers, stage: int) -> None:
    rates = [1e-3, 0.0, 1e-3, 1e-3]
    first, second, third, fourth = workers(2).run(
        deepspeed_jobs.train_on_one_batch, values(inputs, stage), rates
    )[0]
    assert first > second == third > fourth


@pytest.mark.parametrize("stage", [1, 3])
def test_recomputing_computes_every_layer_twice(inputs: Path, workers: Workers, stage: int) -> None:
    config = values(inputs, stage)
    full = {**config, "train": {**config["train"], "recompute": "full"}}
    (once,), (twice,) = (
        workers(1).run(deepspeed_jobs.computed_layers, which) for which in (config, full)
    )
    assert twice == 2 * once > 0


@pytest.mark.parametrize("stage", [0, 2])
def test_the_loss_scale_is_restored(
    inputs: Path, workers: Workers, tmp_path: Path, stage: int
) -> None:
    config = {**values(inputs, stage), "precision": "float16"}
    job = deepspeed_jobs.loss_scale_after_load
    assert workers(1).run(job, config, str(tmp_path / "saved"), 1024.0) == [1024.0]


def test_zero_3_leaves_no_matrix_whole(inputs: Path, workers: Workers) -> None:
    for held in workers(2).run(deepspeed_jobs.held_by_zero_3, values(inputs, 3)):
        for name, (whole, here, part) in held.items():
            assert part == (whole + 1) // 2, name
            if "norm" not in name:
                assert here == 0, name


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_evaluation_computes_the_loss_of_training(
    inputs: Path, workers: Workers, stage: int
) -> None:
    for evaluated, trained in workers(2).run(jobs.evaluate, values(inputs, stage)):
        assert evaluated == trained
