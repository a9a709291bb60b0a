"""Tries something in a Python of its own, which may crash or hang without harm."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

_MOST_SECONDS = 120.0


@dataclass(frozen=True)
class Trial:
    """How it went.

    Attributes:
        worked: Whether it ended well.
        output: What it printed, or where it failed, the last line of its complaint.
        complaint: All that it wrote on stderr.
    """

    worked: bool
    output: str
    complaint: str = ""


def attempt(code: str, environment: Mapping[str, str] | None = None) -> Trial:
    """Runs Python code in another process.

    Args:
        code: Prints what is worth knowing.
        environment: Variables beside those of this process.
    """
    try:
        result = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_MOST_SECONDS,
            env={**os.environ, **(environment or {})},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Trial(False, f"no answer within {_MOST_SECONDS:g} s")
    if result.returncode == 0:
        return Trial(True, result.stdout.strip())
    lines = result.stderr.strip().splitlines() or [f"ended with status {result.returncode}"]
    return Trial(False, lines[-1], result.stderr)
