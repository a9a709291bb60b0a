"""`bc2-train pulse` beside a real run that hangs, is killed, and in the end finishes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from runs import TRAIN, children, make_inputs, run_command, wait_until


class Watched:
    """A run in a directory, and what pulse says of it.

    Args:
        run_dir: The run directory.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir

    def pulse(self, *options: str) -> dict[str, Any]:
        result = subprocess.run(
            [TRAIN, "pulse", str(self._run_dir), "--json", *options],
            env={**os.environ, "XDG_STATE_HOME": str(self._run_dir.parent / "state")},
            capture_output=True,
            text=True,
            check=False,
        )
        values: dict[str, Any] = json.loads(result.stdout)
        assert result.returncode == values["exit_status"], result
        return values

    def is_at(self, iteration: int) -> bool:
        return (self.pulse()["iteration"] or 0) >= iteration


def test_a_run_that_hangs_is_killed_and_finishes(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    run_dir = tmp_path / "run"
    watched = Watched(run_dir)
    assert watched.pulse()["state"] == "gone"

    command = run_command(inputs, run_dir, "train.iterations=100000", "checkpoint.interval=5")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: watched.is_at(6))
        found = watched.pulse()
        assert found["state"] == "running"
        assert [(rank["rank"], rank["process"]) for rank in found["ranks"]] == [
            (0, "alive"),
            (1, "alive"),
        ]

        victim = children(process)[1]
        assert found["ranks"][1]["pid"] == victim
        os.kill(victim, signal.SIGSTOP)
        wait_until(lambda: watched.pulse("--stale-after", "3s")["state"] == "stalled")
        found = watched.pulse("--stale-after", "3s")
        assert found["why"].startswith(f"rank 1 (process {victim} on ")
        assert "is stopped (SIGSTOP" in found["why"]
        assert watched.pulse()["state"] == "running"  # within the limits of its step time

        os.kill(victim, signal.SIGKILL)
        process.communicate(timeout=60)
    finally:
        process.kill()
    found = watched.pulse()
    assert found["state"] == "failed"
    assert "rank 1 on " in found["why"]
    assert "SIGKILL" in found["why"]

    subprocess.run(
        run_command(inputs, run_dir, "train.iterations=20"),
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=180,
    )
    found = watched.pulse()
    assert (found["state"], found["iteration"], found["exit_status"]) == ("finished", 20, 0)
