"""Plots of a run, drawn without a display."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bc2_data.atomic import new_files

if TYPE_CHECKING:
    from bc2_train.compare import Comparison
    from bc2_train.metrics import StepMetrics

_LINE = "#1f5fa8"
_OTHER = "#e08a2e"
_SMOOTHED_FROM = 20  # steps; below that a mean hides more than it shows


def plot_loss(metrics: Sequence[StepMetrics], path: Path, *, title: str = "Training loss") -> None:
    """Draws the loss of every step and, for longer runs, its moving mean as a PNG.

    Args:
        metrics: The steps of a run, as `bc2_train.report.load_metrics` returns them.
        path: The PNG to write; a file that stands there is replaced.
        title: Shown above the plot.
    """
    iterations = [step.iteration for step in metrics]
    losses = [step.loss for step in metrics]
    with _figure(path, rows=1) as (axes,):
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


def plot_comparison(comparison: Comparison, limit: float, path: Path) -> None:
    """Draws two loss curves and, below them, their relative error with its limit, as a PNG.

    Args:
        comparison: Of a run with its reference.
        limit: The largest relative error allowed.
        path: The PNG to write; a file that stands there is replaced.
    """
    iterations = comparison.iterations
    with _figure(path, rows=2) as (losses, errors):
        losses.plot(iterations, comparison.reference, color=_OTHER, linewidth=3, label="reference")
        losses.plot(iterations, comparison.losses, color=_LINE, linewidth=1.5, label="run")
        losses.set_title("Loss against the reference", loc="left", fontweight="bold")
        losses.set_ylabel("loss (nats per token)")
        losses.legend(frameon=False)
        errors.plot(iterations, comparison.relative, color=_LINE, linewidth=1.5)
        errors.axhline(limit, color=_OTHER, linewidth=1.5, linestyle="--")
        errors.annotate(
            f"limit {limit:g}", (iterations[0], limit), (0, 4), textcoords="offset points"
        )
        errors.set_xlabel("iteration")
        errors.set_ylabel("relative error")


@contextmanager
def _figure(path: Path, rows: int) -> Iterator[list[Any]]:
    """Yields the axes of a figure, one below the other, and writes it when the block ends well."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 1.5 + 3 * rows), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, 1, sharex=True, squeeze=False).flat)
    yield axes
    for plot in axes:
        plot.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        plot.margins(x=0.02)
        plot.grid(color="0.9")
        plot.set_axisbelow(True)
        plot.spines[["top", "right"]].set_visible(False)
    with new_files(path) as (partial,):
        figure.savefig(partial, format="png")


def moving_mean(values: Sequence[float], reach: int) -> list[float]:
    """Returns the mean of each value and up to `reach` neighbours on both of its sides."""
    means = []
    for i in range(len(values)):
        window = values[max(0, i - reach) : i + reach + 1]
        means.append(sum(window) / len(window))
    return means
