"""The plots of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bc2_train.compare import Comparison
from bc2_train.metrics.records import StepMetrics
from bc2_train.plotting import plot_comparison, plot_runs
from bc2_train.report.document import Figure
from bc2_train.report.run import Run

CURVES = (
    ("loss.png", "Training loss", "loss", "loss (nats per token)"),
    ("learning-rate.png", "Learning rate", "lr", "learning rate"),
    ("grad-norm.png", "Gradient norm before clipping", "grad_norm", "gradient norm"),
    (
        "throughput.png",
        "Throughput",
        "tokens_per_second_per_device",
        "tokens per second and device",
    ),
)
"""File, title, field of `StepMetrics` and axis of each plot of all runs."""


def draw_curves(runs: Sequence[Run], folder: Path, *, dark: bool) -> list[Figure]:
    """Draws `CURVES`, all runs in each."""
    for file, title, field, ylabel in CURVES:
        series = {run.name: _series(run.steps, field) for run in runs}
        plot_runs(
            series,
            folder / file,
            title=title,
            ylabel=ylabel,
            smooth=field != "lr",  # it is no measurement: a mean would only bend its corners
            dark=dark,
        )
    return [Figure(file, title) for file, title, _, _ in CURVES]


def draw_comparisons(
    comparisons: Mapping[str, Comparison], limit: float, folder: Path, *, dark: bool
) -> dict[str, Figure]:
    """Draws the losses of each run against the reference; returns the plots by the run's name."""
    figures = {}
    for number, (name, comparison) in enumerate(comparisons.items(), 1):
        figure = Figure(f"reference-{number}.png", f"Loss of {name} against the reference")
        plot_comparison(comparison, limit, folder / figure.file, dark=dark)
        figures[name] = figure
    return figures


def _series(steps: Sequence[StepMetrics], field: str) -> tuple[list[int], list[float]]:
    return [step.iteration for step in steps], [getattr(step, field) for step in steps]
