"""The sections of a report about speed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from bc2_train.metrics.records import StepMetrics
from bc2_train.report.document import Block, Paragraph, Section, Table, Verdict
from bc2_train.report.efficiency import exact_tflops, peak
from bc2_train.report.rates import (
    ascendspeed_row,
    mean_rate,
    number,
    spread,
    steady_rates,
    steady_window,
)
from bc2_train.report.run import Run
from bc2_train.report.slow_ranks import slow_ranks

_UNKNOWN = "-"


def performance(runs: Sequence[Run]) -> Section:
    """Returns AscendSpeed's table, a row a run, and the spread of its figures."""
    rows = []
    for run in runs:
        row = ascendspeed_row(
            steady_rates(run.steps),
            device=run.device,
            model=run.model_name,
            iterations=run.steps[-1].iteration,
        )
        rows.append({"Run": run.name, **row, **_exact(run)})
    table = Table(list(rows[0]), [list(row.values()) for row in rows], labels=3)
    return Section("Performance", [table, *(block for run in runs for block in _spread(run))])


def _exact(run: Run) -> dict[str, str]:
    exact = mfu = _UNKNOWN
    if run.model is not None:
        rate = mean_rate(steady_window(run.steps), lambda step: exact_tflops(run, step))
        exact, limit = number(rate), peak(run)
        if limit is not None:
            mfu = f"{rate / limit:.1%}"
    return {"TFLOP/s/device, exact count": exact, "MFU": mfu}


def _spread(run: Run) -> list[Block]:
    window = steady_window(run.steps)
    figures: dict[str, tuple[Callable[[StepMetrics], float], bool]] = {
        "samples/s": (lambda step: step.samples_per_second, True),
        "tokens/s/device": (lambda step: step.tokens_per_second_per_device, True),
        "s/step": (lambda step: step.step_time, False),
        "TFLOP/s/device (AscendSpeed's count)": (lambda step: step.tflops_per_device, True),
    }
    if run.model is not None:
        figures["TFLOP/s/device (exact count)"] = (lambda step: exact_tflops(run, step), True)
    rows = []
    for name, (value, is_rate) in figures.items():
        s = spread(window, value, is_rate=is_rate)
        cells = (s.mean, s.median, s.deviation, s.lowest, s.highest)
        rows.append([name, *map(number, cells)])
    columns = ("Figure", "mean", "median", "standard deviation", "lowest", "highest")
    peak_memory = max(step.memory for step in run.steps) / 2**30
    return [
        Paragraph(
            f"{run.name}: iterations {window[0].iteration} to {window[-1].iteration}, "
            f"{len(window)} steps. Peak memory of the first rank: {peak_memory:.2f} GiB."
        ),
        Table(columns, rows),
    ]


def time_spent(runs: Sequence[Run]) -> Section:
    """Returns where the time of the steps went, and what training stood still for."""
    rows = []
    for run in runs:
        window = steady_window(run.steps)
        step = statistics.fmean(s.step_time for s in window)
        parts = (
            statistics.fmean(s.data_time for s in window),
            statistics.fmean(s.forward_backward_time for s in window),
            statistics.fmean(s.optimizer_time for s in window),
        )
        saves = [save.seconds for save in run.saves]
        evaluations = [evaluation.seconds for evaluation in run.evaluations]
        rest = step - sum(parts)
        rows.append(
            [
                run.name,
                *(_share(part, step) for part in (*parts, rest)),
                *map(_pauses, (saves, evaluations)),
            ]
        )
    columns = (
        "Run",
        "data",
        "forward and backward",
        "optimizer",
        "rest",
        "saves",
        "evaluations",
    )
    text = (
        "Mean seconds of a step of the steady window, as the first rank measured them, and for how "
        "long saves and evaluations stopped training between steps."
    )
    return Section("Where the time went", [Paragraph(text), Table(columns, rows)])


def _share(seconds: float, step: float) -> str:
    return _UNKNOWN if math.isnan(seconds) else f"{number(seconds)} ({seconds / step:.1%})"


def _pauses(seconds: Sequence[float]) -> str:
    if not seconds:
        return "none"
    return f"{len(seconds)}: {number(sum(seconds))} s"


def ranks(runs: Sequence[Run]) -> Section:
    """Returns which ranks the others waited for."""
    return Section("Slow ranks", [block for run in runs for block in _ranks(run)])


def _ranks(run: Run) -> list[Block]:
    if not run.ranks:
        why = "it has one" if run.devices == 1 else "it has not got so far, or is of an older bc2"
        return [Paragraph(f"{run.name}: nothing is known of its ranks: {why}.")]
    found = slow_ranks(run.ranks, statistics.fmean(step.step_time for step in run.steps))
    if not found:
        return [Verdict(f"{run.name}: no rank is slower than the others.", good=True)]
    return [
        Verdict(
            f"{run.name}: rank {slow.rank} is slow: {slow.over} takes it {number(slow.seconds)} s, "
            f"{slow.seconds / slow.usual:.1f} times what others take ({number(slow.usual)} s).",
            good=False,
        )
        for slow in found
    ]
