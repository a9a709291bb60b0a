"""What ranks write: one log for each rank and attempt, and the first rank's on the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import IO, BinaryIO

_FOLDER = "attempt_"


def next_number(run_dir: Path) -> int:
    """Returns the number of the next attempt, of which no log exists."""
    folders = (run_dir / "logs").glob(f"{_FOLDER}*")
    numbers = (path.name.removeprefix(_FOLDER) for path in folders)
    return max((int(number) for number in numbers if number.isdecimal()), default=0) + 1


class Log:
    """The log of a rank in one attempt: ``logs/attempt_N/rank_R.txt``.

    ``logs/rank_R.txt`` links to the newest of a rank.

    Args:
        run_dir: The run directory.
        number: The attempt.
        rank: Who writes.
    """

    def __init__(self, run_dir: Path, number: int, rank: int) -> None:
        self.path = run_dir / "logs" / f"{_FOLDER}{number:03d}" / f"rank_{rank}.txt"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file: BinaryIO = open(self.path, "ab", buffering=0)  # noqa: SIM115 - see close
        logs = self.path.parents[1]
        partial = logs / f".rank_{rank}.partial"
        with contextlib.suppress(OSError):  # a convenience, which training can do without
            partial.unlink(missing_ok=True)
            partial.symlink_to(self.path.relative_to(logs))
            os.replace(partial, logs / f"rank_{rank}.txt")

    def size(self) -> int:
        """Returns how many bytes are in it."""
        return self.path.stat().st_size

    def lines(self, *, since: int = 0, most: int = 20) -> list[str]:
        """Returns the last lines.

        Args:
            since: Only what was written behind so many bytes.
            most: So many.
        """
        with open(self.path, "rb") as file:
            file.seek(since)
            return file.read().decode("utf-8", errors="replace").splitlines()[-most:]

    def close(self) -> None:
        """Closes the file; the worker has its own end of it."""
        self.file.close()


class Tee:
    """Copies what a process writes to a terminal and into its log.

    Args:
        source: The reading end of the process's pipe.
        log: Where it goes besides.
        terminal: File descriptor of this process that it goes to as it comes.
    """

    def __init__(self, source: IO[bytes], log: Log, terminal: int) -> None:
        self._source = source
        self._log = log
        self._terminal = terminal
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def finish(self, timeout: float = 5.0) -> None:
        """Waits until all that the process has written is copied."""
        self._thread.join(timeout)

    def _copy(self) -> None:
        told = False
        while chunk := os.read(self._source.fileno(), 1 << 16):
            for descriptor in (self._terminal, self._log.file.fileno()):
                try:
                    _write(descriptor, chunk)
                except OSError as error:
                    # A full disk, or a terminal that is gone, must not stop the rank that writes.
                    if not told:
                        with contextlib.suppress(OSError):
                            sys.stderr.write(f"warning: a log cannot be written: {error}\n")
                    told = True


def _write(descriptor: int, chunk: bytes) -> None:
    while chunk:
        chunk = chunk[os.write(descriptor, chunk) :]
