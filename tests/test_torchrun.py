"""torchrun in place of the launcher."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from runs import TRAIN, finished_losses, make_inputs, run_command


def test_torchrun_takes_the_same_steps_and_keeps_the_status(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ours = run_command(inputs, tmp_path / "ours")
    subprocess.run(ours, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=180)

    run_dir = tmp_path / "torchrun"
    torchrun = [str(Path(TRAIN).with_name("torchrun")), "--standalone", "--nproc-per-node", "2"]
    subprocess.run(
        [*torchrun, *run_command(inputs, run_dir)], env=environment, check=True, timeout=180
    )
    assert finished_losses(run_dir) == finished_losses(tmp_path / "ours")
    assert json.loads((run_dir / "status.json").read_text())["state"] == "finished"
