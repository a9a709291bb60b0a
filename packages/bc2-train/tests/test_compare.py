"""`bc2-train compare`: errors, verdict, exit status, logs of other programs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from bc2_train.cli import main
from bc2_train.compare import align
from bc2_train.errors import TrainError
from bc2_train.losses import load_losses
from bc2_train.metrics import StepMetrics

LOG = """\
some other line
 iteration        1/     100 | consumed samples:      128 | lm loss: 1.0957E+00 | loss scale: 1 |
 [2024-01-01] iteration        2/     100 | elapsed time (ms): 9.1 | lm loss: 9.5E-01 |
"""


def write_run(folder: Path, losses: list[float]) -> Path:
    folder.mkdir()
    with open(folder / "metrics.jsonl", "w") as file:
        for iteration, loss in enumerate(losses, start=1):
            values = dict.fromkeys(StepMetrics.__dataclass_fields__, 1)
            values |= {"iteration": iteration, "loss": None if math.isnan(loss) else loss}
            file.write(json.dumps(values) + "\n")
    return folder


def test_errors_at_the_iterations_that_both_have() -> None:
    comparison = align({1: 2.0, 2: 1.0, 4: 1.0}, {1: 2.0, 2: 1.25, 3: 9.0})
    assert comparison.iterations == [1, 2]
    assert comparison.absolute == [0.0, 0.25]
    assert comparison.relative == [0.0, 0.2]
    assert comparison.worst == 1
    assert comparison.within(0.2)
    assert not comparison.within(0.19)


def test_nan_is_never_within() -> None:
    assert not align({1: 1.0, 2: math.nan, 3: 5.0}, {1: 1.0, 2: 1.0, 3: 1.0}).within(1e9)


def test_no_common_iteration() -> None:
    with pytest.raises(TrainError, match="one has 1 to 2, the other 5 to 6"):
        align({1: 1.0, 2: 1.0}, {5: 1.0, 6: 1.0})


def test_a_log_of_another_program(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text(LOG)
    assert load_losses(tmp_path / "log.txt") == {1: 1.0957, 2: 0.95}


def test_a_file_without_losses(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("nothing\n")
    with pytest.raises(TrainError, match="holds no line"):
        load_losses(tmp_path / "log.txt")


def test_the_command_says_yes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", [2.0, 1.01])
    reference = write_run(tmp_path / "reference", [2.0, 1.0])
    plot = tmp_path / "plot.png"
    assert main(["compare", str(run), str(reference), "--plot", str(plot)]) == 0
    output = capsys.readouterr().out
    assert "largest relative error: 1.000e-02 at iteration 2" in output
    assert "verdict: within the limit of 0.02" in output
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("losses", [[2.0, 1.03], [2.0, math.nan]])
def test_the_command_says_no(
    tmp_path: Path, losses: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", losses)
    reference = write_run(tmp_path / "reference", [2.0, 1.0])
    assert main(["compare", str(run), str(reference)]) == 1
    captured = capsys.readouterr()
    assert "verdict: ABOVE the limit of 0.02" in captured.out
    assert "error: " in captured.err
