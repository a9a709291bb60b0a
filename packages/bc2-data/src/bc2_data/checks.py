"""Checks that are carried out one after the other, and shown as they come."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from bc2_data.command import show

State = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        state: ``skipped`` where the means to check it are missing.
        what: What holds; where it does not, what was found and where.
    """

    state: State
    what: str


def show_checks(checks: Iterable[Check]) -> int:
    """Writes each check on stdout as it comes, and returns how many failed."""
    failed = 0
    for check in checks:
        show([f"{check.state:<8} {check.what}"])
        failed += check.state == "failed"
    return failed
