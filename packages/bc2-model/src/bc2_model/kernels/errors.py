"""The error of this package, which stands on torch and the standard library alone."""

from __future__ import annotations


class KernelError(ValueError):
    """Arguments that a kernel does not take, or a named backend that cannot run."""
