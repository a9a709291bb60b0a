"""Plots of a run, drawn without a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bc2_data.atomic import new_files

if TYPE_CHECKING:
    from bc2_train.metrics import StepMetrics

_LINE = "#1f5fa8"
_SMOOTHED_FROM = 20  # steps; below that a mean hides more than it shows


def plot_loss(metrics: Sequence[StepMetrics], path: Path, *, title: str = "Training loss") -> None:
    """Draws the loss of every step and, for longer runs, its moving mean as a PNG.

    Args:
        metrics: The steps of a run, as `bc2_train.report.load_metrics` returns them.
        path: The PNG to write; a file that stands there is replaced.
        title: Shown above the plot.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    iterations = [step.iteration for step in metrics]
    losses = [step.loss for step in metrics]
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if len(losses) < _SMOOTHED_FROM:
        axes.plot(iterations, losses, color=_LINE, linewidth=2, marker="o", markersize=4)
    else:
        reach = max(2, len(losses) // 50)
        axes.plot(iterations, losses, color=_LINE, linewidth=1, alpha=0.35, label="each step")
        axes.plot(
            iterations,
            moving_mean(losses, reach),
            color=_LINE,
            linewidth=2.2,
            label=f"mean of {2 * reach + 1} steps",
        )
        axes.legend(frameon=False)
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel("iteration")
    axes.set_ylabel("loss (nats per token)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.margins(x=0.02)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    with new_files(path) as (partial,):
        figure.savefig(partial, format="png")


def moving_mean(values: Sequence[float], reach: int) -> list[float]:
    """Returns the mean of each value and up to `reach` neighbours on both of its sides."""
    means = []
    for i in range(len(values)):
        window = values[max(0, i - reach) : i + reach + 1]
        means.append(sum(window) / len(window))
    return means
