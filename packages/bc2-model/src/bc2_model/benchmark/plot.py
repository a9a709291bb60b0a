"""The measurements as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bc2_model.benchmark.measure import Row


def plot(measured: Mapping[int, Mapping[str, Row]], title: str, path: Path) -> None:
    """Writes a PNG: the time of both passes over the sequence length, one line a competitor.

    Args:
        measured: By sequence length, rows by name.
        title: Above the picture.
        path: Where the PNG goes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in {name: None for rows in measured.values() for name in rows}:
        points = [
            (length, rows[name].total * 1e3)
            for length, rows in sorted(measured.items())
            if name in rows and not rows[name].failure
        ]
        if points:
            style = "-o" if name.startswith("bc2") else "--o"
            axes.plot(*zip(*points, strict=True), style, label=name)
    axes.set(
        title=title,
        xlabel="sequence length",
        ylabel="forward and backward, ms",
        xscale="log",
        yscale="log",
    )
    axes.set_xticks(sorted(measured), [str(length) for length in sorted(measured)], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, format="png", dpi=150)
