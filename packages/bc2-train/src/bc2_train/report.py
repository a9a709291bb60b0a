"""What a finished or running job achieved: its rates, its loss, AscendSpeed's table.

Everything is read from the ``metrics.jsonl`` of a run directory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bc2_train.errors import TrainError
from bc2_train.metrics import StepMetrics

WARMUP_STEPS = 5
"""Steps left out of every rate, as AscendSpeed's own acceptance test leaves them out."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Mean rates over a window of steps: work done in it, divided by its time.

    Attributes:
        first: First iteration of the window.
        last: Last iteration of the window.
        step_time: Seconds a step.
        samples_per_second: Of the whole job.
        tokens_per_second_per_device: Of one device.
        tflops_per_device: TFLOP/s of one device.
    """

    first: int
    last: int
    step_time: float
    samples_per_second: float
    tokens_per_second_per_device: float
    tflops_per_device: float


def load_metrics(run_dir: Path) -> list[StepMetrics]:
    """Reads the steps of a run, which may still go on.

    Raises:
        TrainError: There is no such file, it holds no step, or a line is not what a run writes.
    """
    path = run_dir / "metrics.jsonl"
    if not path.is_file():
        raise TrainError(f"{run_dir} holds no metrics.jsonl", "give the run.dir of a training run")
    with open(path, encoding="utf-8") as file:
        metrics = [
            _parse(line, f"{path}, line {number}")
            for number, line in enumerate(file, 1)
            if line.endswith("\n")  # a killed run leaves its last line unfinished
        ]
    if not metrics:
        raise TrainError(f"{path} holds no finished step", "wait for the run's first step")
    return metrics


def steady_rates(metrics: Sequence[StepMetrics]) -> Rates:
    """Returns the mean rates after the first `WARMUP_STEPS` steps, or half of a very short run."""
    window = metrics[min(WARMUP_STEPS, len(metrics) // 2) :]
    total_time = sum(step.step_time for step in window)

    def per_second(rate: Callable[[StepMetrics], float]) -> float:
        return sum(rate(step) * step.step_time for step in window) / total_time

    return Rates(
        first=window[0].iteration,
        last=window[-1].iteration,
        step_time=total_time / len(window),
        samples_per_second=per_second(lambda step: step.samples_per_second),
        tokens_per_second_per_device=per_second(lambda step: step.tokens_per_second_per_device),
        tflops_per_device=per_second(lambda step: step.tflops_per_device),
    )


def mean_loss(metrics: Sequence[StepMetrics]) -> float:
    """Returns the mean loss of some steps, in nats per token."""
    return sum(step.loss for step in metrics) / len(metrics)


def summary_table(metrics: Sequence[StepMetrics], *, device: str, model: str) -> str:
    """Returns the table of AscendSpeed's README as Markdown, and below it its window of steps.

    Args:
        metrics: All steps of a run, as `load_metrics` returns them.
        device: What it ran on, such as ``8 x NPU``.
        model: What was trained, such as ``Baichuan2-7B``.
    """
    rates = steady_rates(metrics)
    columns = {
        "Device": device,
        "Model": model,
        "total Iterations": str(metrics[-1].iteration),
        "throughput rate (samples/s)": _number(rates.samples_per_second),
        "throughput rate (tokens/s/device)": _number(rates.tokens_per_second_per_device),
        "single-step time (s/step)": _number(rates.step_time),
        "floating point operation (TFLOP/s/device)": _number(rates.tflops_per_device),
    }
    rows = [list(columns), ["---"] * len(columns), list(columns.values())]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"{table}\n\nRates are those of iterations {rates.first} to {rates.last}.\n"


def _parse(line: str, where: str) -> StepMetrics:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise TrainError(f"{where} is not JSON: {error}") from error
    names = [field.name for field in fields(StepMetrics)]
    missing = [name for name in names if name not in values] if isinstance(values, dict) else names
    if missing:
        raise TrainError(f"{where} lacks {', '.join(missing)}")
    known: dict[str, Any] = {
        name: math.nan if values[name] is None else values[name] for name in names
    }
    return StepMetrics(**known)


def _number(value: float) -> str:
    """Returns five significant digits: 124.45 as well as 0.012345."""
    return f"{value:.5g}"
