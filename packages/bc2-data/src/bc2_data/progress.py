"""A progress bar with rate and ETA, on stderr, quiet where nobody watches."""

from __future__ import annotations

import sys
from typing import Any


def progress_bar(total: float | None, unit: str, what: str, scale: bool = True) -> Any:
    """Returns a tqdm bar; it draws nothing where stderr is no terminal.

    Args:
        total: How much there is to do, in `unit`; None where that is unknown.
        unit: ``tokens``, ``B``, ``it`` ...
        what: What is being done, shown before the bar.
        scale: Whether 12,000,000 may read 12M.
    """
    from tqdm import tqdm  # its import costs more than `--help` may take

    class Bar(tqdm):  # type: ignore[misc]
        monitor_interval = 0  # no thread that looks after bars nobody updates

    return Bar(
        total=total,
        unit=unit,
        unit_scale=scale,
        desc=what,
        miniters=1,
        dynamic_ncols=True,
        disable=not sys.stderr.isatty(),
    )
