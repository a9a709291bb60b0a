"""How fast each rank is by itself, so that a slow one can be named.

All ranks of a job end a step together, so step times do not tell which of them the others waited
for. What does: how long a rank takes to read its data, how long it computes before it first waits
for the others (which has a meaning only without tensor, pipeline and context parallelism, whose
ranks wait for each other in every layer), and how long a small computation of its own takes.
"""

from __future__ import annotations

import math
import time

import torch

from bc2_train import runtime
from bc2_train.metrics.records import RankTimes
from bc2_train.ranks import Ranks

INTERVAL = 10
"""Steps from one exchange to the next; it costs a few milliseconds."""

_REPEATS = 5


class RankTimer:
    """Collects the times of this rank and exchanges them every `INTERVAL` steps.

    Args:
        ranks: The processes of the run.
        device: This process's device.
    """

    def __init__(self, ranks: Ranks, device: torch.device) -> None:
        self._ranks = ranks
        self._device = device
        self._data: list[float] = []
        self._local: list[float] = []

    def add(self, *, data: float, local: float) -> None:
        """Takes the times of a step, in seconds; see `RankTimes`."""
        self._data.append(data)
        self._local.append(local)

    def exchange(self, iteration: int) -> RankTimes | None:
        """Returns the times of all ranks where it is time to; all ranks call it together."""
        if self._ranks.size == 1 or iteration % INTERVAL:
            return None
        mine = (_mean(self._data), _mean(self._local), probe(self._device))
        self._data, self._local = [], []
        data, local, probes = zip(*self._ranks.gather(mine), strict=True)
        return RankTimes(iteration=iteration, data=[*data], local=[*local], probe=[*probes])


def probe(device: torch.device) -> float:
    """Returns the mean seconds of a matrix product: a few ms on a core or an accelerator.

    A mean, not the best: a rank that is stopped again and again is a slow one.
    """
    size, dtype = (512, torch.float32) if device.type == "cpu" else (4096, torch.bfloat16)
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    matrix @ matrix  # what is loaded or allocated the first time
    runtime.synchronize(device)
    started = time.perf_counter()
    for _ in range(_REPEATS):
        matrix @ matrix
    runtime.synchronize(device)
    return (time.perf_counter() - started) / _REPEATS


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
