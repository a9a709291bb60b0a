"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: ``problem`` stops a run or makes it wrong, ``warning`` may.
        what: What was found, in one sentence.
        remedy: What to do about it, best as a command; "" where all is well.
    """

    level: Level
    what: str
    remedy: str = ""


def ok(what: str) -> Finding:
    """Returns that something is as it should be."""
    return Finding(level="ok", what=what)


def warning(what: str, remedy: str) -> Finding:
    """Returns that something may be wrong."""
    return Finding(level="warning", what=what, remedy=remedy)


def problem(what: str, remedy: str) -> Finding:
    """Returns that something is wrong."""
    return Finding(level="problem", what=what, remedy=remedy)
