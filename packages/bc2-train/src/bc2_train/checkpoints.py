"""The checkpoints folder of a run: which one is newest, whole, and allowed to stay.

Layout, as Megatron's: ``iter_0000100/`` for each checkpoint and
``latest_checkpointed_iteration.txt`` with the number of the newest, written last.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from bc2_data import atomic

TRACKER = "latest_checkpointed_iteration.txt"
_NAME = re.compile(r"^iter_(\d{7,})$")


class CheckpointFolder:
    """Saves and finds checkpoints; only the first rank changes names.

    Args:
        path: The folder.
        keep: How many of the newest stay; 0 = all.
        describe: Writes the small files that make a checkpoint complete: config and tokenizer.
        is_first: Whether this is rank 0.
        barrier: Waits for all ranks.
    """

    def __init__(
        self,
        path: Path,
        *,
        keep: int,
        describe: Callable[[Path], None],
        is_first: bool,
        barrier: Callable[[], None],
    ) -> None:
        self.path = path
        self._keep = keep
        self._describe = describe
        self._is_first = is_first
        self._barrier = barrier

    def newest(self) -> Path | None:
        """Returns the newest whole checkpoint; a name is only given to whole ones."""
        found = self._all()
        return found[-1] if found else None

    def save(self, iteration: int, write: Callable[[Path], None]) -> Path:
        """Writes a checkpoint under a hidden name, then gives it its own.

        Args:
            iteration: Completed iterations.
            write: Fills the directory; called on every rank.
        """
        final = self.path / f"iter_{iteration:07d}"
        partial = self.path / f".{final.name}.partial"
        if self._is_first:
            atomic.remove(partial)
            partial.mkdir(parents=True)
        self._barrier()
        write(partial)
        if self._is_first:
            self._describe(partial)
        self._barrier()
        if self._is_first:
            atomic.publish(partial, final)
            atomic.write_text(self.path / TRACKER, f"{iteration}\n")
            if self._keep:
                for old in self._all()[: -self._keep]:
                    atomic.remove(old)
        self._barrier()
        return final

    def _all(self) -> list[Path]:
        if not self.path.is_dir():
            return []
        found = [entry for entry in self.path.iterdir() if _NAME.match(entry.name)]
        return sorted(found, key=lambda entry: int(entry.name[5:]))
