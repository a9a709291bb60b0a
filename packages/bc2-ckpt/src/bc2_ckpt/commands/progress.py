"""A progress bar and lines of output that do not write over each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from bc2_data.checks import Check


def above(bar: Any, checks: Iterable[Check]) -> Iterator[Check]:
    """Yields checks, each with the bar out of the way; it comes back with its next step."""
    for check in checks:
        bar.clear()
        yield check
