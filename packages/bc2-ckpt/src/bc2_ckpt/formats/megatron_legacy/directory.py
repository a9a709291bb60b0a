"""Where the files of a legacy checkpoint lie."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bc2_ckpt.errors import DamagedFileError

TRACKER = "latest_checkpointed_iteration.txt"
RELEASE = "release"
FILE = "model_optim_rng.pt"

_FILES = (FILE, "model_rng.pt")
"""The second one is Megatron-LM's of 2022, where the optimizer is distributed."""
_RANK = re.compile(r"mp_rank_(\d{2,})(?:_(\d{3,}))?")
_FOLDER = re.compile(r"release|iter_\d{7,}")


@dataclass(frozen=True)
class LegacyDirectory:
    """The files of a legacy checkpoint.

    Attributes:
        path: The folder that holds a folder for each rank.
        files: Their files, by tensor- and pipeline-parallel rank.
        tp: Tensor-parallel size.
        pp: Pipeline-parallel size.
    """

    path: Path
    files: dict[tuple[int, int], Path]
    tp: int
    pp: int

    def beside(self, name: str) -> Path | None:
        """Returns a small file of the checkpoint, which may lie beside the tracker, or None."""
        folders = [self.path]
        if _FOLDER.fullmatch(self.path.name):
            folders.append(self.path.parent)
        return next((path for folder in folders if (path := folder / name).is_file()), None)


def rank_folder(tp_rank: int, pp_rank: int, pp_size: int) -> str:
    """Returns the name of a rank's folder."""
    name = f"mp_rank_{tp_rank:02d}"
    return name if pp_size == 1 else f"{name}_{pp_rank:03d}"


def find(directory: Path) -> LegacyDirectory | None:
    """Returns the legacy checkpoint in a directory, None where there is none.

    Args:
        directory: It holds the folders of the ranks, or a tracker and what that points to; without
            a tracker, the newest iteration is taken, or else the release.

    Raises:
        DamagedFileError: The tracker points to nothing, or the file of a rank is missing.
    """
    if _ranks(directory):
        return _open(directory)
    tracker = directory / TRACKER
    if tracker.is_file():
        text = tracker.read_text(encoding="utf-8", errors="replace").strip()
        name = f"iter_{int(text):07d}" if text.isdecimal() else text
        if not _FOLDER.fullmatch(name) or not (directory / name).is_dir():
            raise DamagedFileError(
                f"{tracker} points to {text[:40]!r}, which is not beside it",
                "copy the checkpoint again, or name the folder of the iteration yourself",
            )
        return _open(directory / name) if _ranks(directory / name) else None
    folders = [path for path in directory.iterdir() if _FOLDER.fullmatch(path.name)]
    # The newest iteration last; a number of more digits is the larger one.
    folders.sort(key=lambda path: (path.name != RELEASE, len(path.name), path.name))
    return _open(folders[-1]) if folders and _ranks(folders[-1]) else None


def _ranks(folder: Path) -> dict[tuple[int, int], Path]:
    """Returns the folders of the ranks by tensor- and pipeline-parallel rank."""
    return {
        (int(match[1]), int(match[2] or 0)): path
        for path in folder.iterdir()
        if (match := _RANK.fullmatch(path.name)) and path.is_dir()
    }


def _open(folder: Path) -> LegacyDirectory:
    ranks = _ranks(folder)
    tp, pp = (1 + max(numbers) for numbers in zip(*ranks, strict=True))
    files = {}
    for rank in ((tp_rank, pp_rank) for tp_rank in range(tp) for pp_rank in range(pp)):
        place = ranks.get(rank, folder / rank_folder(*rank, pp))
        file = next((path for name in _FILES if (path := place / name).is_file()), None)
        if file is None:
            raise DamagedFileError(
                f"{place / FILE} is missing: the other ranks say that there are {tp} tensor- and "
                f"{pp} pipeline-parallel ranks",
                "copy the checkpoint again",
            )
        files[rank] = file
    return LegacyDirectory(folder, files, tp, pp)
