"""Puts a report together."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from bc2_train import schema
from bc2_train.compare import Comparison, describe
from bc2_train.report import efficiency, performance
from bc2_train.report.document import (
    Block,
    Document,
    Figure,
    Listing,
    Paragraph,
    Section,
    Table,
    Verdict,
)
from bc2_train.report.rates import number
from bc2_train.report.run import Run


def build(
    runs: Sequence[Run],
    curves: Sequence[Figure],
    comparisons: Mapping[str, Comparison],
    plots: Mapping[str, Figure],
    reference: str,
    limit: float,
) -> Document:
    """Returns the report of some runs.

    Args:
        runs: At least one.
        curves: The plots of all runs.
        comparisons: Of runs with the reference, by the run's name; empty without a reference.
        plots: The plot of each comparison, by the same name.
        reference: The reference's name.
        limit: The largest relative error allowed.
    """
    sections = [Section("State", [block for run in runs for block in _state(run)])]
    sections.append(performance.performance(runs))
    if comparisons:
        sections.append(_accuracy(comparisons, plots, reference, limit))
    sections.append(Section("Curves", list(curves)))
    if any(run.evaluations for run in runs):
        sections.append(_evaluations(runs))
    sections += [performance.time_spent(runs), performance.ranks(runs)]
    sections += [_environment(runs), _configuration(runs)]
    if any(run.log for run in runs):
        logs: list[Block] = [
            Listing(f"{run.name}: last lines of log.txt", "\n".join(run.log))
            for run in runs
            if run.log
        ]
        sections.append(Section("Log", logs))
    sections.append(Section("How the figures are computed", efficiency.explain()))
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Document(
        title="Training report: " + ", ".join(run.name for run in runs),
        subtitle=f"Made by bc2-train report, {now}, from "
        + ", ".join(str(run.path.resolve()) for run in runs),
        sections=sections,
    )


def _state(run: Run) -> list[Block]:
    last = run.steps[-1]
    of = f" of {run.iterations}" if run.iterations else ""
    state = "finished" if run.finished else "has not reached its end: it goes on, or was stopped"
    starts = f", started {len(run.environments)} times" if len(run.environments) > 1 else ""
    blocks: list[Block] = [
        Paragraph(
            f"{run.name}: {last.iteration}{of} iterations, {state}{starts}. Loss "
            f"{number(run.steps[0].loss)} at iteration {run.steps[0].iteration}, "
            f"{number(last.loss)} at iteration {last.iteration}. "
            f"{last.consumed_tokens:,} tokens in {last.consumed_samples:,} samples."
        )
    ]
    if run.unusable:
        numbers = [str(step.iteration) for step in run.unusable]
        shown = ", ".join(numbers[:20]) + (" ..." if len(numbers) > 20 else "")
        blocks.append(
            Verdict(
                f"{run.name}: loss or gradient norm was not finite in {len(numbers)} steps "
                f"({shown}); updates left out: {last.skipped}.",
                good=False,
            )
        )
    return blocks


def _accuracy(
    comparisons: Mapping[str, Comparison],
    plots: Mapping[str, Figure],
    reference: str,
    limit: float,
) -> Section:
    section = Section("Accuracy of the loss")
    section.blocks.append(
        Paragraph(
            f"Reference: {reference}. Relative error = |loss - reference| / |reference|, absolute "
            "error = |loss - reference|, at every iteration that both have."
        )
    )
    for name, comparison in comparisons.items():
        *lines, verdict = describe(comparison, limit).splitlines()
        section.blocks.append(
            Verdict(f"{name}: {verdict.partition(': ')[2]}.", good=comparison.within(limit))
        )
        section.blocks.append(
            Table(("Figure", name), [line.split(": ", 1) for line in lines], labels=2)
        )
        section.blocks.append(plots[name])
    return section


def _evaluations(runs: Sequence[Run]) -> Section:
    rows = [
        [run.name, str(e.iteration), number(e.loss), number(e.perplexity), f"{e.tokens:,}"]
        for run in runs
        for e in run.evaluations
    ]
    columns = ("Run", "iteration", "loss (nats per token)", "perplexity", "tokens")
    return Section("Evaluations", [Table(columns, rows)])


def _environment(runs: Sequence[Run]) -> Section:
    section = Section("Environment")
    for run in runs:
        if not run.environments:
            section.blocks.append(Paragraph(f"{run.name}: it wrote none down."))
            continue
        starts = [
            [run.name, e.started, str(e.iteration), ", ".join(e.hosts), _counted(e.devices)]
            for e in run.environments
        ]
        columns = ("Run", "started", "after iteration", "hosts", "devices")
        section.blocks.append(Table(columns, starts, labels=5))
        last = run.environments[-1]
        versions = {"Python": last.python, **last.versions, "system": last.system}
        if last.cann:
            versions["CANN"] = last.cann
        rows = list(map(list, versions.items()))
        section.blocks.append(Table(("Software", run.name), rows, labels=2))
    return section


def _configuration(runs: Sequence[Run]) -> Section:
    section = Section("Configuration")
    known = {run.name: _flat(schema.dump(run.config)) for run in runs if run.config}
    if len(known) > 1:
        keys = dict.fromkeys(key for values in known.values() for key in values)
        rows = [
            [key, *(values.get(key, "-") for values in known.values())]
            for key in keys
            if len({values.get(key) for values in known.values()}) > 1
        ]
        section.blocks.append(Paragraph("Keys in which the runs differ:"))
        section.blocks.append(Table(("key", *known), rows, labels=1 + len(known)))
    section.blocks += [
        Listing(f"{run.name}: config.yaml", run.config_text) for run in runs if run.config_text
    ]
    return section


def _flat(values: Mapping[str, Any], where: str = "") -> dict[str, str]:
    """Returns a nested configuration by the keys that ``--set`` takes."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{where}{key}.")
        else:
            flat[where + key] = str(value)
    return flat


def _counted(names: Sequence[str]) -> str:
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
