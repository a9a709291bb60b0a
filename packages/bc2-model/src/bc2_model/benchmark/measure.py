"""Interleaved timing of forward and backward passes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bc2_model.benchmark.competitors import Attention, Competitor
from bc2_model.benchmark.memory import peak_of


@dataclass
class Row:
    """What was measured of one competitor.

    Attributes:
        forward: Seconds of every round.
        backward: Seconds of every round.
        peak: Bytes that both passes add, with the bias and the gradients; None if unknown.
        failure: Why it did not run to the end, else "".
    """

    forward: list[float] = field(default_factory=list)
    backward: list[float] = field(default_factory=list)
    peak: int | None = None
    failure: str = ""

    @property
    def total(self) -> float:
        """Returns the seconds of both passes, each the best of its rounds."""
        return min(self.forward) + min(self.backward)


def measure(found: Sequence[Competitor], inputs: list[Tensor], rounds: int) -> dict[str, Row]:
    """Measures competitors in turns, so that a change in the machine's load meets all alike.

    Times are CPU seconds of all threads on a CPU and seconds on an accelerator. What a competitor
    prepares is not timed. One that fails keeps its reason, and the others go on.

    Args:
        found: The competitors.
        inputs: q, k, v, which require gradients, and the gradient of the output.
        rounds: Timed rounds, after one to warm up and one in which the memory is measured.
    """
    rows = {each.name: Row() for each in found}
    for number in range(rounds + 2):
        for each in found:
            row = rows[each.name]
            if row.failure:
                continue
            try:
                if number == 0:
                    _time(each.prepare(), inputs, Row())  # what a first pass loads and compiles
                elif number == 1:
                    row.peak = _peak(each, inputs)
                else:
                    _time(each.prepare(), inputs, row)
            except RuntimeError as error:  # torch's own: out of memory, an operator that is missing
                row.failure = str(error).partition("\n")[0]
    return rows


def _peak(competitor: Competitor, inputs: list[Tensor]) -> int | None:
    *qkv, grad = inputs
    return peak_of(lambda: torch.autograd.grad(competitor.prepare()(*qkv), qkv, grad), grad.device)


def _time(call: Attention, inputs: list[Tensor], row: Row) -> None:
    """Runs both passes and adds their seconds to a row."""
    *qkv, grad = inputs
    start = _now(grad.device)
    out = call(*qkv)
    middle = _now(grad.device)
    torch.autograd.grad(out, qkv, grad)
    end = _now(grad.device)
    row.forward.append(middle - start)
    row.backward.append(end - middle)


def _now(device: torch.device) -> float:
    """Returns a time in seconds at which the device has done all that it was given."""
    if device.type == "cpu":
        return time.process_time()
    torch.get_device_module(device).synchronize(device)
    return time.perf_counter()
