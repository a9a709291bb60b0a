"""Rates of a run over its steady window, and AscendSpeed's table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bc2_train.metrics.records import StepMetrics

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


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How a figure is distributed over the steps of a window.

    Attributes:
        mean: Of a rate, work over time: each step weighs as long as it took.
        median: Of the steps.
        deviation: Standard deviation of the steps; 0 for a single one.
        lowest: The smallest.
        highest: The largest.
    """

    mean: float
    median: float
    deviation: float
    lowest: float
    highest: float


def steady_window(metrics: Sequence[StepMetrics]) -> Sequence[StepMetrics]:
    """Returns the steps after the first `WARMUP_STEPS`, or the second half of a very short run."""
    return metrics[min(WARMUP_STEPS, len(metrics) // 2) :]


def mean_rate(window: Sequence[StepMetrics], rate: Callable[[StepMetrics], float]) -> float:
    """Returns the mean of something per second: work over time, not a mean of quotients."""
    total_time = sum(step.step_time for step in window)
    return sum(rate(step) * step.step_time for step in window) / total_time


def spread(
    window: Sequence[StepMetrics], value: Callable[[StepMetrics], float], *, is_rate: bool
) -> Spread:
    """Returns the spread of a figure over a window.

    Args:
        window: At least one step.
        value: The figure of a step.
        is_rate: Whether it is something per second; see `mean_rate`.
    """
    values = [value(step) for step in window]
    return Spread(
        mean=mean_rate(window, value) if is_rate else statistics.fmean(values),
        median=statistics.median(values),
        deviation=statistics.pstdev(values),
        lowest=min(values),
        highest=max(values),
    )


def steady_rates(metrics: Sequence[StepMetrics]) -> Rates:
    """Returns the mean rates of the steady window of a run."""
    window = steady_window(metrics)
    return Rates(
        first=window[0].iteration,
        last=window[-1].iteration,
        step_time=statistics.fmean(step.step_time for step in window),
        samples_per_second=mean_rate(window, lambda step: step.samples_per_second),
        tokens_per_second_per_device=mean_rate(
            window, lambda step: step.tokens_per_second_per_device
        ),
        tflops_per_device=mean_rate(window, lambda step: step.tflops_per_device),
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
    columns = ascendspeed_row(rates, device=device, model=model, iterations=metrics[-1].iteration)
    rows = [list(columns), ["---"] * len(columns), list(columns.values())]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"{table}\n\nRates are those of iterations {rates.first} to {rates.last}.\n"


def ascendspeed_row(rates: Rates, *, device: str, model: str, iterations: int) -> dict[str, str]:
    """Returns a row of the table of AscendSpeed's README, by the names of its columns."""
    return {
        "Device": device,
        "Model": model,
        "total Iterations": str(iterations),
        "throughput rate (samples/s)": number(rates.samples_per_second),
        "throughput rate (tokens/s/device)": number(rates.tokens_per_second_per_device),
        "single-step time (s/step)": number(rates.step_time),
        "floating point operation (TFLOP/s/device)": number(rates.tflops_per_device),
    }


def number(value: float) -> str:
    """Returns five significant digits: 124.45 as well as 0.012345."""
    return f"{value:.5g}"
