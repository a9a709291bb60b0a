"""The checkpoints folder of a run: which one is newest, whole, and allowed to stay.

Layout, as Megatron's: ``iter_0000100/`` for each checkpoint and
``latest_checkpointed_iteration.txt`` with the number of the newest, written last. A checkpoint is
written under a hidden name and gets its own when it is complete, with the SHA-256 of every file in
``checksums.json``.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from bc2_ckpt.integrity.known import TRAINER_CHECKSUMS
from bc2_data import atomic
from bc2_data.checksum import sha256
from bc2_train.errors import TrainError
from bc2_train.ranks import Ranks

log = logging.getLogger(__name__)

TRACKER = "latest_checkpointed_iteration.txt"
T = TypeVar("T")
_NAME = re.compile(r"^iter_(\d{7,})$")


class PendingSave(Protocol):
    """A checkpoint that may still be on its way to the disk."""

    def done(self, *, wait: bool) -> bool:
        """Returns whether every file of every rank is written; called on all ranks together.

        Args:
            wait: Return only when it is.
        """
        ...


@dataclass
class _Unfinished:
    """A checkpoint that has no name yet.

    Attributes:
        iteration: Its number.
        save: Whether its files are written.
        checksums: Of this rank's share of them, once they are written.
    """

    iteration: int
    save: PendingSave
    checksums: Future[dict[str, str]] | None = None


class CheckpointFolder:
    """Saves and finds checkpoints; every rank calls every method, the first changes names.

    Args:
        path: The folder, on a file system that all ranks share.
        keep: How many of the newest stay; 0 = all.
        keep_every: Checkpoints of iterations divisible by this always stay; 0 = none.
        describe: Writes the small files that make a checkpoint complete: config and tokenizer.
        ranks: The processes of the run.
    """

    def __init__(
        self,
        path: Path,
        *,
        keep: int,
        keep_every: int,
        describe: Callable[[Path], None],
        ranks: Ranks,
    ) -> None:
        self.path = path
        self._keep = keep
        self._keep_every = keep_every
        self._describe = describe
        self._ranks = ranks
        self._unfinished: _Unfinished | None = None
        self._background = ThreadPoolExecutor(1)

    def save(self, iteration: int, write: Callable[[Path], PendingSave]) -> None:
        """Begins a checkpoint; `finish` or a later `save` completes it.

        Args:
            iteration: Completed iterations.
            write: Fills the directory, perhaps in the background.
        """
        self.finish(wait=True)
        partial = self._partial(iteration)
        if self._ranks.rank == 0:
            atomic.remove(partial)
            partial.mkdir(parents=True)
        self._ranks.barrier()
        self._unfinished = _Unfinished(iteration, self._guarded(lambda: write(partial)))

    def finish(self, *, wait: bool) -> Path | None:
        """Completes the checkpoint that was begun, if its files are all written and read again.

        Checksums are computed in the background: training goes on meanwhile.

        Args:
            wait: Whether to wait until it is complete.

        Returns:
            The checkpoint that has just become whole, or None.
        """
        unfinished = self._unfinished
        if unfinished is None:
            return None
        iteration = unfinished.iteration
        partial, final = self._partial(iteration), self._final(iteration)
        if unfinished.checksums is None:
            if not self._guarded(lambda: unfinished.save.done(wait=wait)):
                return None
            if self._ranks.rank == 0:
                self._describe(partial)
            self._ranks.barrier()
            unfinished.checksums = self._background.submit(self._settle, partial)
        if not wait and self._ranks.any(not unfinished.checksums.done()):
            return None
        ours = self._guarded(unfinished.checksums.result)
        self._unfinished = None
        checksums = _joined(self._ranks.gather(ours))
        if self._ranks.rank == 0:
            text = json.dumps(dict(sorted(checksums.items())), indent=2) + "\n"
            (partial / TRAINER_CHECKSUMS).write_text(text, "utf-8")
            atomic.publish(partial, final)
            atomic.write_text(self.path / TRACKER, f"{iteration}\n")
            self._remove_old()
        self._ranks.barrier()
        return final

    def newest_whole(self) -> Path | None:
        """Returns the newest checkpoint whose files are all as they were written.

        A damaged one is passed over with a warning.
        """
        for path in reversed(self.all()):
            damage = self._damage(path)
            if damage is None:
                return path
            log.warning("%s is damaged (%s): going back to an older checkpoint", path, damage)
        if self.all():
            raise TrainError(
                f"every checkpoint in {self.path} is damaged",
                "restore one from a copy, or choose another checkpoint.dir to start afresh",
            )
        return None

    def all(self) -> list[Path]:
        """Returns the checkpoints, oldest first."""
        if not self.path.is_dir():
            return []
        found = [entry for entry in self.path.iterdir() if _NAME.match(entry.name)]
        return sorted(found, key=_iteration)

    def _guarded(self, action: Callable[[], T]) -> T:
        """Returns what an action of an engine returns, or says that saving failed and where."""
        try:
            return action()
        except OSError as error:
            free = shutil.disk_usage(self.path).free
            saved = self.all()
            raise TrainError(
                f"saving to {self.path} failed, where {free / 1e6:,.0f} MB are free: {error}",
                "make room or choose another checkpoint.dir; the same command goes on from "
                f"{saved[-1].name if saved else 'the start'}",
            ) from error

    def _final(self, iteration: int) -> Path:
        return self.path / f"iter_{iteration:07d}"

    def _partial(self, iteration: int) -> Path:
        return self.path / f".iter_{iteration:07d}.partial"

    def _settle(self, directory: Path) -> dict[str, str]:
        """Makes sure that this rank's share of the files is on disk; returns its checksums."""
        for path in self._share(directory):
            atomic.sync(path)
        return self._own_checksums(directory)

    def _own_checksums(self, directory: Path) -> dict[str, str]:
        """Returns the SHA-256 of this rank's share of the files."""
        return {str(path.relative_to(directory)): sha256(path) for path in self._share(directory)}

    def _damage(self, directory: Path) -> str | None:
        """Returns what is wrong with a checkpoint, the same on every rank, or None."""
        expected = _read_checksums(directory / TRAINER_CHECKSUMS)
        if expected is None:
            return f"no readable {TRAINER_CHECKSUMS}"
        found = _joined(self._ranks.gather(self._own_checksums(directory)))
        for name, value in expected.items():
            if name not in found:
                return f"{name} is missing"
            if found[name] != value:
                return f"{name} has changed"
        return None

    def _share(self, directory: Path) -> Iterator[Path]:
        """Yields this rank's share of a checkpoint's files."""
        files = sorted(
            path
            for path in directory.rglob("*")
            if path.is_file() and path.name != TRAINER_CHECKSUMS
        )
        yield from files[self._ranks.rank :: self._ranks.size]

    def _remove_old(self) -> None:
        if not self._keep:
            return
        for path in self.all()[: -self._keep]:
            if not (self._keep_every and _iteration(path) % self._keep_every == 0):
                atomic.remove(path)


def _iteration(path: Path) -> int:
    return int(path.name[5:])


def _joined(parts: list[dict[str, str]]) -> dict[str, str]:
    return {name: value for part in parts for name, value in part.items()}


def _read_checksums(path: Path) -> dict[str, str] | None:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
