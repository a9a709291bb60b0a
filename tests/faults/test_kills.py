"""A run that is killed again and again takes the steps of one that never was, bit for bit.

`--kills` says how often each run is killed, `--kill-seed` repeats the moments of an earlier run of
these tests, which are others every time.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import pytest
import yaml

import jobs
from conftest import write_checkpoint
from parity import random_tokens
from reference_model import TrainingRecipe
from runs import (
    TRAIN,
    children,
    finished_losses,
    run_values,
    wait_until,
    write_instruction_rows,
)
from workers import WorkerGroup

Workers = Callable[[int], WorkerGroup]

STEPS_PER_KILL = 8
MOMENTS = ("in a save", "in a step", "early")

# With the way in which checkpoints are saved: in the background or not.
LAYOUTS = {
    "TP2": ({"tensor": 2}, True),
    "PP2": ({"pipeline": 2}, False),
    "DP2+distributed optimizer": ({"distributed_optimizer": True}, True),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_checkpoint(folder / "hf", "alibi")
    write_instruction_rows(folder / "rows", random_tokens(251, 64, 65))
    return folder


class Victim:
    """A run that goes on in the same directory until it is killed or ends.

    Args:
        recipe: A run on two processes.
        run_dir: Its directory.
        moments: Decides who is killed, and when.
    """

    def __init__(self, recipe: Path, run_dir: Path, moments: random.Random) -> None:
        self._command = [TRAIN, "run", str(recipe), "--nproc-per-node", "2"]
        self._metrics = run_dir / "metrics.jsonl"
        self._checkpoints = run_dir / "checkpoints"
        self._moments = moments

    def steps(self) -> list[tuple[int, float, float]]:
        """Returns iteration, loss and gradient norm of every step that counts."""
        return finished_losses(self._metrics.parent) if self._metrics.exists() else []

    def finish(self) -> None:
        process = self._start()
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output

    def kill(self, when: str) -> str:
        """Starts it and kills a random process of it at one of `MOMENTS`; returns what happened."""
        process = self._start()
        if when == "early":
            time.sleep(self._moments.uniform(0, 8))
        else:
            step = self._saved() + self._moments.randint(1, 4)
            come = self._is_saving if when == "in a save" else self._has_finished
            wait_until(lambda: come(step) or process.poll() is not None)
            time.sleep(self._moments.uniform(0, 0.2))
        assert process.poll() is None, "the run ended before it was killed"
        ranks = children(process)
        victim = self._moments.choice([process.pid, *ranks])
        os.kill(victim, signal.SIGKILL)
        process.communicate(timeout=60)
        wait_until(lambda: not any(_is_alive(rank) for rank in ranks), timeout=60)
        who = "the launcher" if victim == process.pid else f"rank {ranks.index(victim)}"
        unfinished = [path.name for path in self._checkpoints.glob(".*")]
        return f"{who} killed {when} after {len(self.steps())} steps, unfinished: {unfinished}"

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # sums in the order of the worker group
        )

    def _saved(self) -> int:
        """Returns the iteration of the newest checkpoint."""
        return max((int(path.name[5:]) for path in self._checkpoints.glob("iter_*")), default=0)

    def _has_finished(self, step: int) -> bool:
        return any(iteration >= step for iteration, _, _ in self.steps())

    def _is_saving(self, step: int) -> bool:
        names = [path.name for path in self._checkpoints.glob(".iter_*.partial")]
        return any(int(name[6:13]) >= step for name in names)


def _is_alive(process: int) -> bool:
    """Whether a process is there that has not ended; who should notice may be gone."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_killed_runs_take_the_steps_of_an_undisturbed_one(
    inputs: Path, workers: Workers, tmp_path: Path, pytestconfig: pytest.Config, layout: str
) -> None:
    kills, seed = (pytestconfig.getoption(name) for name in ("--kills", "--kill-seed"))
    run_dir = tmp_path / "run"
    parallel, asynchronous = LAYOUTS[layout]
    values = run_values(
        inputs / "hf",
        inputs / "rows",
        TrainingRecipe(),
        batch={"micro": 1},
        train={"iterations": STEPS_PER_KILL * (kills + 1)},
        parallel=parallel,
        checkpoint={"interval": 1, "keep": 2, "asynchronous": asynchronous},
        run={"dir": str(run_dir)},
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values))
    victim = Victim(recipe, run_dir, random.Random(f"{seed} {layout}"))
    story = [victim.kill(when) for when in islice(cycle(MOMENTS), kills)]
    victim.finish()

    expected = workers(2).run(jobs.train, values)[0]
    steps = [(loss, norm) for _, loss, norm in victim.steps()]
    assert steps == expected, "\n".join(story)
