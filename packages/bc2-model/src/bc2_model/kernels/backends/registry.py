"""The backends in order of preference, and the choice among them."""

from __future__ import annotations

import functools
import logging
from typing import Protocol

from torch import Tensor

from bc2_model.kernels.backends import (
    cpu,
    cuda_flash_attn,
    cuda_flex,
    cuda_triton,
    npu,
    reference,
)
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


BACKENDS: tuple[Backend, ...] = (npu, cuda_flash_attn, cuda_triton, cuda_flex, cpu, reference)
"""Best first; the last one takes every problem."""

FAMILIES = {"cuda": (cuda_flash_attn.NAME, cuda_triton.NAME, cuda_flex.NAME)}
"""Names for several backends: the first of them that can run is taken."""


def select(
    problem: AttentionProblem, name: str = AUTO, backends: tuple[Backend, ...] = BACKENDS
) -> Backend:
    """Returns the named backend, or with "auto" the first that can run the problem.

    Raises:
        KernelError: No backend has this name, or it cannot run the problem; says why.
    """
    candidates = _candidates(name, backends)
    reasons = []
    for each in candidates:
        reason = each.unsupported_reason(problem)
        if reason is None:
            if len(candidates) > 1:
                _announce(each.NAME)
            return each
        reasons.append(reason if name == each.NAME else f"{each.NAME}: {reason}")
    raise KernelError(f"attention backend {name!r} cannot run this: {'; '.join(reasons)}")


def _candidates(name: str, backends: tuple[Backend, ...]) -> tuple[Backend, ...]:
    """Returns the backends that a name stands for, best first."""
    if name == AUTO:
        return backends
    named = tuple(each for each in backends if each.NAME in FAMILIES.get(name, (name,)))
    if not named:
        known = ", ".join([AUTO, *FAMILIES, *(each.NAME for each in backends)])
        raise KernelError(f"unknown attention backend {name!r}; known: {known}")
    return named


@functools.cache
def _announce(name: str) -> None:
    """Logs a choice the first time it is made."""
    _logger.info("attention backend: %s", name)
