"""The last lines of a run's logs, safe to print."""

from __future__ import annotations

import os
from pathlib import Path

_LINES = 10
_LONGEST = 300  # characters of a line
_TAIL = 64 << 10  # bytes of a log that are looked at


def last_lines(run_dir: Path, rank: int | None) -> list[str]:
    """Returns the last lines that a rank logged, or rank 0 where that one did not.

    Args:
        run_dir: The run directory.
        rank: The rank that matters most; None for rank 0.
    """
    of_rank = [] if rank is None else [run_dir / "logs" / f"rank_{rank}.txt"]
    for path in (*of_rank, run_dir / "log.txt"):
        if lines := _tail(path):
            return lines
    return []


def printable(text: str) -> str:
    """Returns a line without what could move a terminal's cursor or end a mail's header."""
    return "".join(c if c.isprintable() else " " for c in text)


def _tail(path: Path) -> list[str]:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            text = file.read(_TAIL).decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = [printable(line).rstrip()[:_LONGEST] for line in text.splitlines()]
    return [line for line in lines if line][-_LINES:]
