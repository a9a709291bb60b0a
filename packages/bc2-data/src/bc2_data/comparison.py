"""The first difference between two values that JSON can hold, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def first_difference(before: Any, now: Any, where: str = "") -> str:
    """Returns what differs first, such as ``options max_length was 4097, is 2049``.

    Args:
        before: One value.
        now: The other.
        where: What the values are, for the answer.

    Returns:
        "" where they are equal.
    """
    if before == now:
        return ""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {**before, **now}:
            found = first_difference(before.get(key), now.get(key), f"{where} {key}".strip())
            if found:
                return found
    return f"{where} was {_shown(before)}, is {_shown(now)}"


def _shown(value: Any) -> str:
    return "not given" if value is None else str(value)
