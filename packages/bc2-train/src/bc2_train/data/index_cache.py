"""The index files of megatron-core's datasets: made once a disk, whole or not at all.

megatron-core lets the first process of a run build them and all others load them. That fails where
each node keeps them on a disk of its own; what a killed process has half written is taken for
whole; and data that was made anew under its old name is read with its old index. Here the files
have a folder named after everything that they depend on, which appears by renaming.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bc2_data import atomic
from bc2_data.indexed import bin_path, idx_path
from bc2_train.errors import TrainError
from bc2_train.ranks import Ranks

Build = Callable[[Any, Path], object]


@contextmanager
def index_files(
    cache: Path, prefixes: Sequence[str], settings: Any, ranks: Ranks, build: Build
) -> Iterator[Path]:
    """Yields the folder in which this rank builds its datasets, all ranks together.

    The files are there already, or the first rank writes them while the block runs.

    Args:
        cache: Where folders of index files are; on a disk of all nodes, or one of each.
        prefixes: The data.
        settings: All else that the files depend on; picklable, and known by its repr.
        ranks: The processes of the run.
        build: Builds the datasets of settings in a folder; a function of a module.

    Raises:
        TrainError: The files cannot be written.
    """
    folder = cache / _fingerprint(prefixes, settings)
    there = ranks.gather(folder.is_dir())
    if all(there):
        yield folder
        return
    first = _first_rank_here(cache, ranks)
    building = first == 0 and not there[0]
    if ranks.rank == first and not building and not there[first]:
        _build_alone(settings, folder, build)
    partial = cache / f".{folder.name}.partial"
    if ranks.rank == 0:
        atomic.remove(partial)  # a killed run may have left it
    ranks.barrier()
    yield partial if building else folder
    ranks.barrier()
    if ranks.rank == 0 and building:
        # What is mapped into memory by now stays so.
        atomic.publish(partial, folder)


def _fingerprint(prefixes: Sequence[str], settings: Any) -> str:
    files = [path(Path(prefix)) for prefix in prefixes for path in (idx_path, bin_path)]
    states = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps([states, repr(settings)]).encode()).hexdigest()[:16]


def _first_rank_here(cache: Path, ranks: Ranks) -> int:
    """Returns the lowest of the ranks that see the same folder, as their marks in it tell."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        run = ranks.gather(secrets.token_hex(8))[0]
        mark = cache / f".{run}.{ranks.rank}"
        mark.touch()
        ranks.barrier()
        first = min(int(path.suffix[1:]) for path in cache.glob(f".{run}.*"))
        ranks.barrier()
        mark.unlink()
    except OSError as error:
        raise TrainError(
            f"index files cannot be kept in {cache}: {error}",
            "set data.cache to a folder that can be written",
        ) from error
    return first


def _build_alone(settings: Any, folder: Path, build: Build) -> None:
    """Builds in a process of its own: in this one, only the first rank of the run would."""
    process = multiprocessing.get_context("spawn").Process(
        target=_fill, args=(settings, folder, build)
    )
    process.start()
    process.join()
    if process.exitcode:
        raise TrainError(f"the index files in {folder.parent} were not built, see above")


def _fill(settings: Any, folder: Path, build: Build) -> None:
    import torch.distributed as dist

    with tempfile.TemporaryDirectory() as store:
        dist.init_process_group("gloo", init_method=f"file://{store}/s", rank=0, world_size=1)
        with atomic.new_directory(folder) as partial:
            build(settings, partial)
        dist.destroy_process_group()
