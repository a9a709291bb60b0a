"""Plots of a run, drawn without a display."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bc2_data.atomic import new_files

if TYPE_CHECKING:
    from bc2_train.compare import Comparison
    from bc2_train.metrics import StepMetrics

# Of middle lightness: they show on white as well as on a dark page.
_LINE = "#2f7fd6"
_OTHER = "#e08a2e"
_COLOURS = (_LINE, _OTHER, "#3a8f5c", "#a4508b", "#7a6a53", "#2aa0b8", "#c44e52", "#6b6fd1")
_SMOOTHED_FROM = 20  # steps; below that a mean hides more than it shows


def plot_loss(metrics: Sequence[StepMetrics], path: Path, *, title: str = "Training loss") -> None:
    """Draws the loss of every step and, for longer runs, its moving mean as a PNG.

    Args:
        metrics: The steps of a run, as `bc2_train.report.load_metrics` returns them.
        path: The PNG to write; a file that stands there is replaced.
        title: Shown above the plot.
    """
    losses = [step.iteration for step in metrics], [step.loss for step in metrics]
    plot_runs({"loss": losses}, path, title=title, ylabel="loss (nats per token)")


def plot_comparison(
    comparison: Comparison, limit: float, path: Path, *, dark: bool = False
) -> None:
    """Draws two loss curves and, below them, their relative error with its limit, as a PNG.

    Args:
        comparison: Of a run with its reference.
        limit: The largest relative error allowed.
        path: The PNG to write; a file that stands there is replaced.
        dark: Whether it is for a dark page.
    """
    iterations = comparison.iterations
    with _figure(path, rows=2, dark=dark) as (losses, errors):
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


def plot_runs(
    series: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    path: Path,
    *,
    title: str,
    ylabel: str,
    smooth: bool = True,
    dark: bool = False,
) -> None:
    """Draws a figure of every step of some runs as a PNG.

    Steps at which it is not finite are marked on the axis.

    Args:
        series: Iterations and values of each run, by its name.
        path: The PNG to write; a file that stands there is replaced.
        title: Shown above the plot.
        ylabel: What the values are, with their unit.
        smooth: Whether the moving mean is drawn over the values of longer runs.
        dark: Whether it is for a dark page.
    """
    with _figure(path, rows=1, dark=dark) as (axes,):
        for place, (name, (iterations, values)) in enumerate(series.items()):
            label = _literal(name)
            colour = _COLOURS[place % len(_COLOURS)]
            if len(values) < _SMOOTHED_FROM:
                axes.plot(
                    iterations, values, color=colour, lw=2, marker="o", markersize=4, label=label
                )
            elif not smooth:
                axes.plot(iterations, values, color=colour, lw=2, label=label)
            else:
                means = moving_mean(values, max(2, len(values) // 50))
                axes.plot(iterations, values, color=colour, lw=1, alpha=0.35)
                axes.plot(iterations, means, color=colour, lw=2.2, label=label)
            lost = [i for i, value in zip(iterations, values, strict=True) if value != value]
            axes.plot(
                lost, [0.01] * len(lost), "x", color=colour, transform=axes.get_xaxis_transform()
            )
        axes.set_title(title, loc="left", fontweight="bold")
        smoothed = smooth and any(len(values) >= _SMOOTHED_FROM for _, values in series.values())
        axes.set_xlabel("iteration (thick: moving mean)" if smoothed else "iteration")
        axes.set_ylabel(ylabel)
        if len(series) > 1:
            axes.legend(frameon=False)


def _literal(text: str) -> str:
    """Returns text in which matplotlib sees no formula, and no label that it would hide."""
    return "\u200b" + text.replace("$", r"\$")


@contextmanager
def _figure(path: Path, rows: int, *, dark: bool = False) -> Iterator[list[Any]]:
    """Yields the axes of a figure, one below the other, and writes it when the block ends well."""
    from matplotlib import rc_context, style

    with rc_context(), style.context("dark_background" if dark else "default"):
        yield from _drawn(path, rows, "#14171a" if dark else "white")


def _drawn(path: Path, rows: int, ground: str) -> Iterator[list[Any]]:
    """Yields axes under the present style; see `_figure`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(
        figsize=(6.4, 1.2 + 2.4 * rows), dpi=187.5, layout="constrained", facecolor=ground
    )
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, 1, sharex=True, squeeze=False).flat)
    yield axes
    for plot in axes:
        plot.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        plot.margins(x=0.02)
        plot.set_facecolor(ground)
        plot.grid(color="0.5", alpha=0.25)
        plot.set_axisbelow(True)
        plot.spines[["top", "right"]].set_visible(False)
    with new_files(path) as (partial,):
        figure.savefig(partial, format="png")


def moving_mean(values: Sequence[float], reach: int) -> list[float]:
    """Returns the mean of each value and up to `reach` neighbours on both of its sides.

    What is not finite is left out of the means of its neighbours; its own is NaN.
    """
    means = []
    for i, value in enumerate(values):
        window = [v for v in values[max(0, i - reach) : i + reach + 1] if math.isfinite(v)]
        means.append(sum(window) / len(window) if math.isfinite(value) else math.nan)
    return means
