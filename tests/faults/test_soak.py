"""Random kills every few minutes for as long as one likes: `--soak-minutes`, see `nox -s soak`."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runs import children, finished_losses, make_inputs, run_command

GAPS = (10.0, 300.0)  # seconds between two kills
ITERATIONS = "train.iterations=200000"  # more than there is time for
OPTIONS = ("checkpoint.interval=20", "checkpoint.keep=2", "checkpoint.asynchronous=true")


def test_a_soaked_run_ends_with_the_loss_of_an_undisturbed_one(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    minutes, seed = (pytestconfig.getoption(name) for name in ("--soak-minutes", "--kill-seed"))
    if not minutes:
        pytest.skip("takes as long as --soak-minutes says: nox -s soak")
    inputs = make_inputs(tmp_path)
    run_dir = tmp_path / "run"
    command = run_command(inputs, run_dir, ITERATIONS, *OPTIONS)
    moments = random.Random(f"soak {seed}")
    longest = min(GAPS[1], 60 * minutes / 4)
    end = time.monotonic() + 60 * minutes
    kills = 0
    with open(tmp_path / "output.txt", "w") as output:
        process = subprocess.Popen(
            [*command, "--max-restarts", "1000"], stdout=output, stderr=output
        )
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, moments.uniform(GAPS[0], longest)))
            assert process.poll() is None, (tmp_path / "output.txt").read_text()[-2000:]
            if time.monotonic() < end and (ranks := children(process)):
                os.kill(moments.choice(ranks), signal.SIGKILL)
                kills += 1
        # Where a restart is pending or has just begun, there is nothing to save first.
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=300) == 75
    steps = finished_losses(run_dir)
    assert kills
    assert steps

    # The order of the data follows from the iterations asked for: the same, ended early.
    undisturbed = tmp_path / "undisturbed"
    command = run_command(inputs, undisturbed, ITERATIONS, "checkpoint.interval=0")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None and len(steps) > _count(undisturbed):
        time.sleep(5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 75
    assert steps == finished_losses(undisturbed)[: len(steps)]
    sys.stdout.write(
        f"{kills} kills in {minutes:g} minutes, {len(steps)} steps, final loss {steps[-1][1]!r}\n"
    )


def _count(run_dir: Path) -> int:
    return len(finished_losses(run_dir)) if (run_dir / "metrics.jsonl").exists() else 0
