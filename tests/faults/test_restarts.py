"""Ranks that die or hang under a launcher that may start them again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from runs import children, finished_losses, make_inputs, run_command, wait_until

STEPS = 45
INTERVAL = 5
HANG_TIMEOUT = 6.0
OPTIONS = (
    f"train.iterations={STEPS}",
    f"checkpoint.interval={INTERVAL}",
    f"launch.hang_timeout={HANG_TIMEOUT}",
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def undisturbed(inputs: Path) -> list[tuple[int, float, float]]:
    run_dir = inputs / "undisturbed"
    command = run_command(inputs, run_dir, *OPTIONS)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=300)
    return finished_losses(run_dir)


def start(inputs: Path, run_dir: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [*run_command(inputs, run_dir, *OPTIONS), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_steps(run_dir: Path, process: subprocess.Popen[str], steps: int) -> None:
    def come() -> bool:
        return (run_dir / "metrics.jsonl").exists() and len(finished_losses(run_dir)) >= steps

    wait_until(lambda: come() or process.poll() is not None)
    assert process.poll() is None


def state(run_dir: Path) -> str:
    return str(json.loads((run_dir / "status.json").read_text())["state"])


def test_a_run_whose_ranks_die_and_hang_takes_the_same_steps(
    inputs: Path, tmp_path: Path, undisturbed: list[tuple[int, float, float]]
) -> None:
    run_dir = tmp_path / "run"
    process = start(inputs, run_dir, "--max-restarts", "2")
    wait_for_steps(run_dir, process, 12)
    os.kill(children(process)[0], signal.SIGKILL)
    wait_until(lambda: state(run_dir) == "restarting")
    wait_until(lambda: state(run_dir) == "running")
    killed_at = len(finished_losses(run_dir))
    wait_for_steps(run_dir, process, killed_at + 8)
    os.kill(children(process)[1], signal.SIGSTOP)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "rank 0 on " in errors
    assert "ended with SIGKILL; restart 1 of 2" in errors
    assert re.search(r"rank 1 was .* its process was stopped .*; restart 2 of 2", errors)
    resumed = [int(n) for n in re.findall(r"resumed from \S+, iteration (\d+)", output)]
    assert len(resumed) == 2
    assert resumed[0] >= 12 - 2 * INTERVAL  # the newest may not have been whole yet
    assert finished_losses(run_dir) == undisturbed
    logs = sorted(str(path.relative_to(run_dir)) for path in run_dir.glob("logs/attempt_*/*"))
    assert logs == [f"logs/attempt_00{n}/rank_{rank}.txt" for n in (1, 2, 3) for rank in (0, 1)]
    assert state(run_dir) == "finished"


def test_a_hang_is_reported_with_the_stacks_of_the_rank(inputs: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start(inputs, run_dir)
    wait_for_steps(run_dir, process, 7)
    victim = children(process)[1]
    os.kill(victim, signal.SIGSTOP)
    stopped = time.monotonic()
    _, errors = process.communicate(timeout=120)
    took = time.monotonic() - stopped
    assert process.returncode == 1
    # A rank that was saving when it was stopped has six times as long.
    saving = "rank 1 was saving" in errors
    assert took < HANG_TIMEOUT * (6 if saving else 1) + 30
    assert re.search(r"error: rank 1 was \w+ after step \d+ and silent for \d+ s", errors)
    assert f"process {victim}, state T (stopped)" in errors
    log = (run_dir / "logs" / "attempt_001" / "rank_1.txt").read_text()
    for text in (errors, log):
        assert re.search(r'File ".*/bc2_train/loop.py", line \d+ in run', text)
    status = json.loads((run_dir / "status.json").read_text())
    assert (status["state"], status["exit_status"]) == ("failed", 1)
    assert status["message"].startswith("rank 1 was ")


def test_what_the_user_can_mend_is_not_started_again(inputs: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    text = Path(f"{inputs / 'text_document'}.idx")
    (tmp_path / "cut.idx").write_bytes(text.read_bytes()[:40])
    (tmp_path / "cut.bin").write_bytes(b"")
    command = run_command(inputs, run_dir, *OPTIONS, f"data.prefix={tmp_path / 'cut'}")
    result = subprocess.run(
        [*command, "--max-restarts", "3"], capture_output=True, text=True, timeout=180, check=False
    )
    assert result.returncode == 2, result.stderr
    assert "restart 1" not in result.stderr
    assert str(tmp_path / "cut") in result.stderr
    assert "note: rank 0 on " in result.stderr
    assert state(run_dir) == "failed"
