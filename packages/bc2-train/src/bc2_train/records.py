"""Small JSON files that one process writes and others read, held to the fields of a dataclass."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TypeVar

from bc2_train import schema
from bc2_train.errors import TrainError

T = TypeVar("T")


def read_record(cls: type[T], path: Path) -> T:
    """Reads a record that may be damaged: half there, of zeros, or somebody else's.

    Args:
        cls: A dataclass as `schema.build` takes it.
        path: A JSON file of its fields.

    Raises:
        TrainError: The file is damaged.
        OSError: It cannot be read.
    """
    data = path.read_bytes()
    try:
        record = schema.build(cls, json.loads(data))
    except (AttributeError, ValueError, RecursionError, TrainError) as error:
        raise TrainError(f"{path} is damaged: {error}") from error
    values = (getattr(record, field.name) for field in dataclasses.fields(cls))  # type: ignore[arg-type]
    if not all(math.isfinite(value) for value in values if isinstance(value, float)):
        raise TrainError(f"{path} is damaged: it holds a number that is not finite")
    return record
