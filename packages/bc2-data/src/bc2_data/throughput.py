"""How fast a run goes: a bar for who watches, lines for a log file."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from types import TracebackType
from typing import Self

from bc2_data.progress import progress_bar
from bc2_data.shards.report import Progress


class Throughput:
    """Counts what was done and shows it on stderr.

    Args:
        total_bytes: Size of all inputs.
        done_bytes: How much of that an earlier run dealt with.
        log_interval: A line for every so many documents; None writes no lines.
    """

    def __init__(self, total_bytes: int, done_bytes: int, log_interval: int | None) -> None:
        self._total_bytes = total_bytes
        self._done_bytes = done_bytes
        self._log_interval = log_interval
        self._next_line = log_interval or 0
        self._start = time.monotonic()
        self._bytes = 0
        self._tokens = 0
        self._documents = 0
        self._bar = progress_bar(total_bytes, "B", "tokenising")
        self._bar.initial = self._bar.n = done_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def advance(self, progress: Progress) -> None:
        """Counts some work."""
        self._bytes += progress.size
        self._documents += progress.documents
        self._tokens += progress.tokens
        self._bar.set_postfix_str(f"{self._rate(self._tokens) / 1e6:.2f} M tokens/s", refresh=False)
        self._bar.update(progress.size)
        if self._log_interval and self._documents >= self._next_line:
            self._next_line = (self._documents // self._log_interval + 1) * self._log_interval
            self._bar.clear()
            sys.stderr.write(self._line())

    def _rate(self, count: int) -> float:
        return count / max(time.monotonic() - self._start, 1e-9)

    def _line(self) -> str:
        done = self._done_bytes + self._bytes
        left = max(self._total_bytes - done, 0) / max(self._rate(self._bytes), 1)
        return (
            f"{self._documents:,} documents, {self._tokens:,} tokens, "
            f"{done / max(self._total_bytes, 1):.1%} of the input, "
            f"{self._rate(self._tokens):,.0f} tokens/s, {timedelta(seconds=round(left))} to go\n"
        )
