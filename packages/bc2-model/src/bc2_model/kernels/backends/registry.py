"""The backends in order of preference, and the choice among them."""

from __future__ import annotations

import functools
import logging
from typing import Protocol

from torch import Tensor

from bc2_model.kernels.backends import cpu, reference
from bc2_model.kernels.errors import KernelError
from bc2_model.kernels.problem import AttentionProblem

AUTO = "auto"

_logger = logging.getLogger(__name__)


class Backend(Protocol):
    """What a module in this folder offers."""

    NAME: str

    def unsupported_reason(self, problem: AttentionProblem) -> str | None:
        """Returns why this problem cannot run here, or None where it can."""

    def attention(self, problem: AttentionProblem) -> Tensor:
        """Solves a problem that has no `unsupported_reason`."""


BACKENDS: tuple[Backend, ...] = (cpu, reference)
"""Best first; the last one takes every problem."""


def select(
    problem: AttentionProblem, name: str = AUTO, backends: tuple[Backend, ...] = BACKENDS
) -> Backend:
    """Returns the named backend, or with "auto" the first that can run the problem.

    Raises:
        KernelError: No backend has this name, or it cannot run the problem; says why.
    """
    if name == AUTO:
        chosen = next(each for each in backends if each.unsupported_reason(problem) is None)
        _announce(chosen.NAME)
        return chosen
    named = {each.NAME: each for each in backends}
    if name not in named:
        known = ", ".join([AUTO, *named])
        raise KernelError(f"unknown attention backend {name!r}; known: {known}")
    reason = named[name].unsupported_reason(problem)
    if reason is not None:
        raise KernelError(f"attention backend {name!r} cannot run this: {reason}")
    return named[name]


@functools.cache
def _announce(name: str) -> None:
    """Logs a choice the first time it is made."""
    _logger.info("attention backend: %s", name)
