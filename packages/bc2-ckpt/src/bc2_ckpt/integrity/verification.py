"""What ``bc2-ckpt verify`` checks: is a checkpoint what it was when it was written?"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

from bc2_ckpt.blocks import read_blocks
from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.config import ModelConfig
from bc2_ckpt.errors import (
    CkptError,
    DamagedFileError,
    NotACheckpointError,
    WrittenOnlyError,
)
from bc2_ckpt.filters.digesting import Digesting
from bc2_ckpt.formats.megatron_legacy.directory import find as find_legacy
from bc2_ckpt.formats.protocol import CheckpointReader
from bc2_ckpt.formats.torch_dist.reader import is_run, newest_iteration
from bc2_ckpt.integrity.archives import check_archives
from bc2_ckpt.integrity.files import OnBytes, check_files
from bc2_ckpt.integrity.known import Known, find_known
from bc2_ckpt.integrity.manifest import TensorRecord
from bc2_data.checks import Check


def verify(
    directory: Path, config: ModelConfig | None = None, on_bytes: OnBytes = lambda count: None
) -> Iterator[Check]:
    """Yields one check after the other.

    Every byte of every file first; then the tensors as a model gets them, so that a writer that
    went wrong is found out too.

    Args:
        directory: A checkpoint of any format, or a run's checkpoints.
        config: The model; None to read the config.json that belongs to the checkpoint.
        on_bytes: Called with the number of bytes of everything that is read.

    Raises:
        NotACheckpointError: Nothing at `directory` looks like a checkpoint.
    """
    folders = _folders(directory)
    tensors: Mapping[str, TensorRecord] = {}
    try:
        known = next(filter(None, map(find_known, folders)), None)
    except DamagedFileError as error:
        yield Check("failed", error.message)
    else:
        if known is None:
            yield Check("skipped", f"checksums: none are written beside {folders[-1]}")
            yield from check_archives(folders[-1], on_bytes)
        else:
            yield from check_files(known.path.parent, known.files, on_bytes)
            yield from _surplus(known)
            tensors = known.tensors
    try:
        reader = open_checkpoint(directory, config)
        yield Check("ok", "every tensor of the config is there, in its shape")
        yield from _check_tensors(reader, tensors, on_bytes)
    except WrittenOnlyError as error:
        yield Check("skipped", f"tensors: {error.message}")
    except NotACheckpointError:
        raise
    except CkptError as error:
        yield Check("failed", error.message)


def _folders(directory: Path) -> list[Path]:
    """Returns where checksums may be written: beside a tracker, and in what it points to."""
    if not directory.is_dir():
        return [directory]
    try:
        legacy = find_legacy(directory)
    except DamagedFileError:  # opening the checkpoint says so again
        return [directory]
    if legacy:
        return [directory, legacy.path]
    return [directory, newest_iteration(directory)] if is_run(directory) else [directory]


def _surplus(known: Known) -> Iterator[Check]:
    """Names the files that came later."""
    root = known.path.parent
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = path.relative_to(root).as_posix()
        if path != known.path and name not in known.files:
            yield Check("skipped", f"{name} is not in {known.path.name}")


def _check_tensors(
    reader: CheckpointReader, known: Mapping[str, TensorRecord], on_bytes: OnBytes
) -> Iterator[Check]:
    """Compares the tensors with what the manifest says of them."""
    if not known:
        return
    failed = 0
    with Digesting(reader, on_bytes) as digesting:
        for name in reader.tensors():
            deque(read_blocks(digesting, name), maxlen=0)
        digests = digesting.digests()
    for name, info in reader.tensors().items():
        found = TensorRecord(info.dtype_name, info.shape, digests[name])
        if known.get(name) != found:
            failed += 1
            yield Check("failed", f"{name} is not the tensor that was written")
    if not failed:
        yield Check("ok", f"{len(digests)} tensors have the dtype, shape and SHA-256 written down")
