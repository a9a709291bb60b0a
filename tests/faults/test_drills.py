"""Faults inside a run: a gradient, a file, a clock, a rank that is not what it should be."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path

import pytest

from injection import injected
from runs import TRAIN, finished_losses, make_inputs, run_command

NAN_GRADIENT = """
import os
_reduce = MegatronEngine._reduce_gradients
_calls = 0

def _poisoned(self, *args, **kwargs):
    global _calls
    _calls += 1
    if os.environ["RANK"] == "1" and {first} <= _calls <= {last}:
        next(self.chunks[0].parameters()).main_grad.view(-1)[0] = math.nan
    return _reduce(self, *args, **kwargs)

MegatronEngine._reduce_gradients = _poisoned
"""
CLOCK = """
_write = Heartbeat._write
_now = time.time

def _with_clock_moved(self, message=""):
    if self._iteration >= 6:
        time.time = lambda: _now() - 3600
    _write(self, message)

Heartbeat._write = _with_clock_moved
"""
SLOW_RANK = """
import os, time
_step = BatchLoader.step

def _slow(self, iteration):
    if os.environ["RANK"] == "1":
        time.sleep(0.3)
    return _step(self, iteration)

BatchLoader.step = _slow
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def run(
    command: list[str], environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=180, check=False
    )


def nan_gradient(tmp_path: Path, first: int, last: int) -> dict[str, str]:
    change = NAN_GRADIENT.format(first=first, last=last)
    return injected(tmp_path / "injected", "bc2_train.engines.megatron.engine", change)


def test_a_gradient_that_is_nan_costs_its_step_alone(inputs: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    result = run(run_command(inputs, run_dir), nan_gradient(tmp_path, 4, 4))
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["skipped"] for line in lines] == [0, 0, 0, 1, 1, 1, 1, 1]
    assert all(math.isfinite(line["loss"]) for line in lines)
    assert [line["iteration"] for line in lines if line["grad_norm"] is None] == [4]


def test_gradients_that_stay_nan_end_the_run(inputs: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    command = run_command(inputs, run_dir, "train.most_skipped=2", "checkpoint.interval=2")
    result = run([*command, "--max-restarts", "3"], nan_gradient(tmp_path, 5, 99))
    assert result.returncode == 2
    assert "3 steps in a row had a gradient that is not finite" in result.stderr
    assert f"the last good checkpoint is {run_dir / 'checkpoints' / 'iter_0000006'}" in (
        result.stderr
    )
    assert "after 7 steps" in result.stderr


def test_data_that_cannot_be_read(inputs: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "text_document"
    index, tokens = (Path(f"{inputs / 'text_document'}{end}") for end in (".idx", ".bin"))
    Path(f"{prefix}.idx").write_bytes(index.read_bytes())
    Path(f"{prefix}.bin").write_bytes(tokens.read_bytes()[: tokens.stat().st_size // 2])
    result = run(run_command(inputs, tmp_path / "run", f"data.prefix={prefix}"))
    assert result.returncode == 2, result.stderr
    assert f"{prefix}.bin" in result.stderr
    assert result.stderr.count("error: ") == 1


def test_a_damaged_checkpoint_costs_one_interval(inputs: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    command = run_command(inputs, run_dir, "train.iterations=6")
    assert run(command).returncode == 0
    before = finished_losses(run_dir)
    newest = run_dir / "checkpoints" / "iter_0000006"
    victim = max((path for path in newest.rglob("*") if path.is_file()), key=_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    result = run(command)
    assert result.returncode == 0, result.stderr
    assert f"{newest} is damaged ({victim.relative_to(newest)} has changed)" in result.stdout
    assert "iter_0000003, iteration 3" in result.stdout
    assert finished_losses(run_dir) == before


def _size(path: Path) -> int:
    return path.stat().st_size


def test_a_clock_moved_back_changes_nothing(inputs: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    environment = injected(tmp_path / "injected", "bc2_train.heartbeat", CLOCK)
    options = ("train.iterations=40", "checkpoint.interval=20", "launch.hang_timeout=5")
    result = run(run_command(inputs, run_dir, *options), environment)
    assert result.returncode == 0, result.stderr
    assert len(finished_losses(run_dir)) == 40
    beat = json.loads((run_dir / "heartbeat.json").read_text())
    status = json.loads((run_dir / "status.json").read_text())
    assert beat["time"] < status["time"] - 3000, "the clock was not moved"
    assert status["state"] == "finished"
    assert run([TRAIN, "pulse", str(run_dir)]).returncode == 0


def test_a_slow_rank_is_named_in_the_report(inputs: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    environment = injected(tmp_path / "injected", "bc2_train.data.batches", SLOW_RANK)
    options = ("train.iterations=31", "checkpoint.interval=0")
    assert run(run_command(inputs, run_dir, *options), environment).returncode == 0
    report = run([TRAIN, "report", str(run_dir)])
    assert report.returncode == 0, report.stderr
    pages = "".join(path.read_text() for path in run_dir.rglob("*.md"))
    assert "rank 1 is slow: reading data" in pages
    # Its tensor-parallel peer takes as long over each step, since it waits for it.
    assert "rank 0 is slow: reading data" not in pages
    assert "rank 0 is slow: computing" not in pages
