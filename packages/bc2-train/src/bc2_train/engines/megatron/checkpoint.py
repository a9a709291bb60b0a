"""megatron-core distributed checkpoints: one copy, loadable under any layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncCallsQueue
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.transformer.utils import ensure_metadata_has_dp_cp_group
from torch.distributed.checkpoint.api import CheckpointException

from bc2_ckpt.formats.torch_dist.vetting import vet
from bc2_model.megatron import Baichuan2Model
from bc2_train.checkpoints import PendingSave
from bc2_train.engines.base import Progress
from bc2_train.engines.megatron import fixes


def save(
    directory: Path,
    chunks: list[Baichuan2Model],
    optimizer: MegatronOptimizer,
    progress: Progress,
    *,
    asynchronous: bool,
) -> PendingSave:
    """Writes parameters, optimizer state and progress; every rank takes part.

    Args:
        directory: Exists and is empty, on a file system that all ranks share.
        chunks: This rank's model chunks.
        optimizer: Over these chunks.
        progress: Saved beside them.
        asynchronous: Whether a forked process writes the files while training goes on; it has the
            tensors as they are now.
    """
    state = _sharded_state(chunks, optimizer, is_loading=False)
    state.update(dataclasses.asdict(progress))
    with _ordinary_errors():
        request = dist_checkpointing.save(
            state,
            str(directory),
            sharded_strategy=("torch_dist", 1),
            async_sharded_save=asynchronous,
        )
    return Written() if request is None else BackgroundSave(request)


class Written:
    """A save that was done before training went on."""

    def done(self, *, wait: bool) -> bool:
        """Returns True."""
        return True


class BackgroundSave:
    """A save that megatron-core's background process carries out.

    Args:
        request: What ``dist_checkpointing.save`` returned.
    """

    def __init__(self, request: Any) -> None:
        self._queue = AsyncCallsQueue()
        self._queue.schedule_async_request(request)

    def done(self, *, wait: bool) -> bool:
        """Returns whether all ranks have written; see `PendingSave.done`."""
        with _ordinary_errors():
            return bool(self._queue.maybe_finalize_async_calls(blocking=wait))


def load(directory: Path, chunks: list[Baichuan2Model], optimizer: MegatronOptimizer) -> Progress:
    """Restores parameters and optimizer state in place and returns the progress.

    Args:
        directory: What `save` wrote, under this or another layout.
        chunks: This rank's model chunks.
        optimizer: Over these chunks.
    """
    vet(directory)
    fixes.prepare_optimizer_state(optimizer)
    with _ordinary_errors():
        state = dist_checkpointing.load(
            _sharded_state(chunks, optimizer, is_loading=True), str(directory)
        )
    for key, chunk in _named(chunks):
        chunk.load_state_dict(state[key])
    optimizer.load_state_dict(state["optimizer"])
    fixes.separate_steps(optimizer)
    return Progress(**{field.name: state[field.name] for field in dataclasses.fields(Progress)})


@contextmanager
def _ordinary_errors() -> Iterator[None]:
    """Turns torch's CheckpointException, which no ``except Exception`` catches, into an OSError."""
    try:
        yield
    except CheckpointException as error:
        rank, (failure, _) = next(iter(error.failures.items()))
        raise OSError(f"rank {rank}: {failure}") from error


def _sharded_state(
    chunks: list[Baichuan2Model], optimizer: MegatronOptimizer, is_loading: bool
) -> dict[str, Any]:
    metadata = ensure_metadata_has_dp_cp_group(
        {"distrib_optim_sharding_type": "fully_reshardable", "chained_optim_avoid_prefix": True}
    )
    state: dict[str, Any] = {
        key: chunk.sharded_state_dict(metadata=metadata) for key, chunk in _named(chunks)
    }
    with torch.no_grad():
        state["optimizer"] = optimizer.sharded_state_dict(
            state, is_loading=is_loading, metadata=metadata
        )
    return state


def _named(chunks: list[Baichuan2Model]) -> list[tuple[str, Baichuan2Model]]:
    """Pairs each chunk with the key under which megatron-core's tools expect it."""
    if len(chunks) == 1:
        return [("model", chunks[0])]
    return [(f"model{index}", chunk) for index, chunk in enumerate(chunks)]
