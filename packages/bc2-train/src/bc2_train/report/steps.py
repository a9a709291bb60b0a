"""Reads the records of a run directory, whatever state the run is in."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from bc2_train.errors import TrainError
from bc2_train.metrics.records import StepMetrics

T = TypeVar("T")


def load_metrics(run_dir: Path) -> list[StepMetrics]:
    """Reads the steps of a run, which may still go on.

    Raises:
        TrainError: There is no such file, it holds no step, or a line is not what a run writes.
    """
    path = run_dir / "metrics.jsonl"
    if not path.is_file():
        raise TrainError(f"{run_dir} holds no metrics.jsonl", "give the run.dir of a training run")
    metrics = load_records(path, StepMetrics)
    if not metrics:
        raise TrainError(f"{path} holds no finished step", "wait for the run's first step")
    return metrics


def load_records(path: Path, kind: type[T]) -> list[T]:
    """Reads the finished lines of a file of records; none where there is no such file.

    Args:
        path: One JSON object a line.
        kind: A dataclass. Keys that it does not know are left out, fields with a default may lack.

    Raises:
        TrainError: A line is no such record.
    """
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", errors="replace") as file:
        return [
            _parse(line, kind, f"{path}, line {number}")
            for number, line in enumerate(file, 1)
            if line.endswith("\n")  # a killed run leaves its last line unfinished
        ]


def _parse(line: str, kind: type[T], where: str) -> T:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise TrainError(f"{where} is not JSON: {error}") from error
    known = fields(kind)  # type: ignore[arg-type]
    given = values if isinstance(values, dict) else {}
    required = [field.name for field in known if field.default is dataclasses.MISSING]
    missing = [name for name in required if name not in given]
    if missing:
        raise TrainError(f"{where} lacks {', '.join(missing)}")
    return kind(**{f.name: _number(given[f.name]) for f in known if f.name in given})


def _number(value: Any) -> Any:
    """Returns a value with NaN for null, which stands for it in JSON."""
    if isinstance(value, list):
        return [_number(each) for each in value]
    return math.nan if value is None else value
