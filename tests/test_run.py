"""`bc2-train run` from outside: processes, files, resume, and what is said of wrong input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from bc2_ckpt.checkpoint import open_checkpoint
from conftest import write_checkpoint
from runs import (
    ITERATIONS,
    finished_losses,
    make_inputs,
    run_command,
    wait_until,
    write_manifest,
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def run(inputs: Path, run_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        run_command(inputs, run_dir, *options),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(inputs: Path) -> Path:
    run_dir = inputs / "undisturbed"
    result = run(inputs, run_dir)
    assert result.returncode == 0, result.stdout + result.stderr
    return run_dir


def test_a_run_leaves_what_it_promises(undisturbed: Path) -> None:
    for name in ("config.yaml", "log.txt", "metrics.jsonl", "tensorboard", "checkpoints"):
        assert (undisturbed / name).exists(), name
    lines = metrics(undisturbed)
    assert [line["iteration"] for line in lines] == list(range(1, ITERATIONS + 1))
    assert lines[-1]["consumed_samples"] == ITERATIONS * 8
    assert lines[-1]["consumed_tokens"] == ITERATIONS * 8 * 64
    log = (undisturbed / "log.txt").read_text()
    assert log.count("| lm loss: ") == ITERATIONS
    names = sorted(path.name for path in (undisturbed / "checkpoints").glob("iter_*"))
    assert names == ["iter_0000003", "iter_0000006", "iter_0000008"]


def test_a_checkpoint_of_the_run_can_be_opened_and_has_changed(
    undisturbed: Path, inputs: Path
) -> None:
    before, after = open_checkpoint(inputs / "hf"), open_checkpoint(undisturbed / "checkpoints")
    assert before.tensors().keys() == after.tensors().keys()
    for name, info in before.tensors().items():
        assert after.tensors()[name].shape == info.shape
        assert not torch.equal(before.read(name), after.read(name)), name


def test_a_killed_run_resumes_with_the_same_losses(undisturbed: Path, inputs: Path) -> None:
    run_dir = inputs / "killed"
    process = subprocess.Popen(run_command(inputs, run_dir), start_new_session=True)
    wait_until(lambda: (run_dir / "metrics.jsonl").exists() and len(finished_losses(run_dir)) >= 5)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    reached = len(finished_losses(run_dir))
    assert 5 <= reached < ITERATIONS, "the run was too fast to be killed between checkpoints"

    result = run(inputs, run_dir)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "iter_0000003, iteration 3" in result.stdout
    assert finished_losses(run_dir) == finished_losses(undisturbed)


def test_workers_end_with_their_launcher(inputs: Path) -> None:
    run_dir = inputs / "orphans"
    options = ("train.iterations=100000", "checkpoint.interval=0")
    process = subprocess.Popen(run_command(inputs, run_dir, *options))
    wait_until(lambda: (run_dir / "metrics.jsonl").exists() and len(finished_losses(run_dir)) >= 1)
    process.kill()
    process.wait()
    time.sleep(2)
    reached = len(finished_losses(run_dir))
    time.sleep(2)
    assert len(finished_losses(run_dir)) == reached


def test_a_preempted_run_saves_and_goes_on_later(undisturbed: Path, inputs: Path) -> None:
    run_dir = inputs / "preempted"
    process = subprocess.Popen(run_command(inputs, run_dir, "checkpoint.interval=0"))
    wait_until(lambda: (run_dir / "metrics.jsonl").exists() and len(finished_losses(run_dir)) >= 4)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 75
    reached = len(finished_losses(run_dir))
    assert 4 <= reached < ITERATIONS
    assert (run_dir / "checkpoints" / f"iter_{reached:07d}").is_dir()

    assert run(inputs, run_dir).returncode == 0
    assert finished_losses(run_dir) == finished_losses(undisturbed)


def test_evaluation_and_asynchronous_saves_change_no_loss(undisturbed: Path, inputs: Path) -> None:
    options = (
        "evaluation.interval=4",
        "evaluation.batches=2",
        f"evaluation.prefix={inputs / 'text_document'}",
        "checkpoint.asynchronous=true",
    )
    result = run(inputs, inputs / "evaluated", *options)
    assert result.returncode == 0, result.stdout + result.stderr
    assert finished_losses(inputs / "evaluated") == finished_losses(undisturbed)
    lines = (inputs / "evaluated" / "evaluations.jsonl").read_text().splitlines()
    evaluations = [json.loads(line) for line in lines]
    assert [line["iteration"] for line in evaluations] == [4, 8]
    assert [line["tokens"] for line in evaluations] == [2 * 8 * 64] * 2
    checkpoints = sorted(path.name for path in (inputs / "evaluated" / "checkpoints").glob("i*"))
    assert checkpoints == ["iter_0000003", "iter_0000006", "iter_0000008"]


def test_deterministic_mode_takes_the_same_steps(undisturbed: Path, inputs: Path) -> None:
    result = run(inputs, inputs / "deterministic", "train.deterministic=true")
    assert result.returncode == 0, result.stdout + result.stderr
    for step, expected in zip(
        finished_losses(inputs / "deterministic"), finished_losses(undisturbed), strict=True
    ):
        # Other operators may add in another order.
        assert step == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["parallel.tensor=3"], "num_attention_heads is 10"),
        (["data.prefix=nowhere"], "no data at nowhere"),
        (["model.init=nowhere"], "model.init is 'nowhere', which is no directory"),
        (["model.config=baichuan2-8b"], "no model config at baichuan2-8b"),
        (["optimizer.rate=1"], "unknown key 'optimizer.rate'"),
        (["batch.global=7"], "batch.global is 7"),
    ],
)
def test_wrong_input_stops_before_anything_is_written(
    inputs: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    result = run(inputs, tmp_path / "run", *options)
    assert result.returncode == 2
    assert message in result.stderr
    assert "hint: " in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_dry_run_keeps_nothing_and_tells_of_another_tokenizer(
    inputs: Path, tmp_path: Path
) -> None:
    model, prefix = tmp_path / "hf", tmp_path / "text_document"
    shutil.copytree(inputs / "hf", model)
    (model / "tokenizer.model").write_bytes(b"pieces")
    for ending in (".bin", ".idx"):
        shutil.copy(f"{inputs / 'text_document'}{ending}", f"{prefix}{ending}")
    write_manifest(prefix, tokenizer_sha256="0" * 64)
    arguments = run_command(
        inputs, tmp_path / "run", f"model.init={model}", f"data.prefix={prefix}"
    )
    result = subprocess.run(
        [*arguments, "--dry-run"], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("| lm loss: ") == 1
    assert "saved " in result.stdout
    assert result.stdout.count("tokenise the data again") == 1
    assert list((tmp_path / "run").iterdir()) == []


def test_weights_of_another_model(inputs: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "other", "alibi", num_layers=4)
    result = run(inputs, tmp_path / "run", f"model.init={tmp_path / 'other'}")
    assert result.returncode == 2
    assert result.stderr.count("error: ") == 1
    assert "its num_layers is 4, that of model.config is 2" in result.stderr


def test_a_run_that_must_start_afresh_refuses_checkpoints(inputs: Path, undisturbed: Path) -> None:
    result = run(inputs, undisturbed, "checkpoint.resume=never")
    assert result.returncode == 2
    assert "checkpoint.resume is never" in result.stderr
    assert len(finished_losses(undisturbed)) == ITERATIONS
