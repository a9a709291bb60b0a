"""Writes a run's records to its files, and hands them to whoever else listens."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from bc2_data.atomic import write_text
from bc2_train.metrics.records import Evaluation, RankTimes, Record, Save, StepMetrics
from bc2_train.metrics.sinks import Sink
from bc2_train.metrics.tensorboard import TensorBoard

FILES: dict[type[Record], str] = {
    StepMetrics: "metrics.jsonl",
    Evaluation: "evaluations.jsonl",
    Save: "saves.jsonl",
    RankTimes: "ranks.jsonl",
}
"""One file a kind of record, in the run directory."""


class MetricsWriter:
    """Appends to the files of `FILES` and to TensorBoard's event file, and feeds other sinks.

    Args:
        run_dir: The run directory.
        iteration: Last completed iteration: lines beyond it, which an earlier process wrote after
            its last checkpoint, are dropped, since these steps will be taken again.
        sinks: Where the records go besides; closed with the writer.
    """

    def __init__(self, run_dir: Path, iteration: int, sinks: Sequence[Sink] = ()) -> None:
        self._files = {kind: _reopen(run_dir / name, iteration) for kind, name in FILES.items()}
        self._sinks = (TensorBoard(run_dir / "tensorboard", iteration), *sinks)

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.ExitStack() as stack:  # all are closed, whatever one of them raises
            for file in self._files.values():
                stack.callback(file.close)
            for sink in self._sinks:
                stack.callback(sink.close)

    def write(self, record: Record) -> None:
        """Writes one record; a reader sees whole lines only."""
        file = self._files[type(record)]
        file.write(json.dumps(_finite(asdict(record)), allow_nan=False) + "\n")
        file.flush()
        for sink in self._sinks:
            sink.write(record)


def _finite(values: Any) -> Any:
    """Returns the values with null for what JSON has no number for."""
    if isinstance(values, dict):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, list):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def _reopen(path: Path, iteration: int) -> TextIO:
    """Opens a file for appending, without its lines beyond an iteration."""
    write_text(path, "".join(_lines_up_to(path, iteration)))
    return open(path, "a", encoding="utf-8")  # the writer closes it


def _lines_up_to(path: Path, iteration: int) -> list[str]:
    """Returns the whole lines of a metrics file whose iteration is not beyond the given one."""
    if not path.exists():
        return []
    kept = []
    for line in path.read_text("utf-8").splitlines(keepends=True):
        try:
            known = json.loads(line)["iteration"] <= iteration
        except ValueError:  # a line that a killed process did not finish
            continue
        if known:
            kept.append(line)
    return kept
