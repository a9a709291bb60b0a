"""Writes a report into a folder: Markdown with its plots, and one HTML page."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bc2_data.atomic import refuse_existing, write_text
from bc2_train.compare import Comparison, compare
from bc2_train.report import content, html, markdown
from bc2_train.report.figures import draw_comparisons, draw_curves
from bc2_train.report.run import load_runs

PAGE = "report.html"
TEXT = "report.md"


def write_report(
    paths: list[Path], output: Path, *, reference: Path | None, limit: float
) -> dict[Path, Comparison]:
    """Writes ``report.html``, ``report.md`` and the plots that the latter shows.

    An earlier report in the folder is replaced.

    Args:
        paths: Run directories.
        output: The folder; made where it does not exist.
        reference: A run directory or a training log, or None.
        limit: The largest relative error of a loss allowed.

    Returns:
        The comparison of each run with the reference; empty without one.

    Raises:
        Bc2Error: A run or the reference cannot be read, or files in the folder are of no report.
    """
    runs = load_runs(paths)
    comparisons = {run.name: compare(run.path, reference) for run in runs} if reference else {}
    refuse_existing(output / TEXT, overwrite=(output / PAGE).exists())
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        dark = Path(folder)
        for place, is_dark in ((dark, True), (output, False)):
            curves = draw_curves(runs, place, dark=is_dark)
            plots = draw_comparisons(comparisons, limit, place, dark=is_dark)
        document = content.build(runs, curves, comparisons, plots, str(reference), limit)
        write_text(output / TEXT, markdown.render(document))
        write_text(output / PAGE, html.render(document, output, dark))
    return {run.path: comparisons[run.name] for run in runs if run.name in comparisons}
