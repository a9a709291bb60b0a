"""Checkpoints of the deepspeed engine: safetensors and JSON, for any ZeRO stage and world size.

A checkpoint directory holds:

- ``model*.safetensors``, with an index where there are several: the weights in the precision of the
  run, as Hugging Face names and arranges them. Where adapters are trained,
  ``adapter_model.safetensors`` and ``adapter_config.json``, as PEFT has them.
- ``optimizer/state*.safetensors``: in float32, PARAMETER.exp_avg and PARAMETER.exp_avg_sq, and of a
  run in 16 bits PARAMETER.master.
- ``training_state.json``: progress, the optimizer's step, the loss scale.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bc2_ckpt.files import read_json, write_json
from bc2_ckpt.formats.hf.files import WeightFile, open_weight_file
from bc2_ckpt.formats.protocol import TensorInfo
from bc2_train.checkpoints import PendingSave
from bc2_train.engines.base import Progress
from bc2_train.engines.deepspeed.optimizer import whole_shape
from bc2_train.engines.deepspeed.shards import Entry, ShardWriter
from bc2_train.engines.deepspeed.state import MOMENTS, OptimizerState
from bc2_train.errors import TrainError
from bc2_train.ranks import Ranks

_STATE = "training_state.json"
_OPTIMIZER = "optimizer"
_SCALER = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a checkpoint is made of.

    Attributes:
        parameters: The trained ones, by the names under which they are stored.
        stem: Of the files of their weights.
        dtype: Of these weights.
        split: Whether they may stand in several files.
        state: Float32 weights and moments.
        loss_scaler: DeepSpeed's.
    """

    parameters: dict[str, nn.Parameter]
    stem: str
    dtype: torch.dtype
    split: bool
    state: OptimizerState
    loss_scaler: Any


def save(
    directory: Path, training: Training, progress: Progress, ranks: Ranks, *, asynchronous: bool
) -> PendingSave:
    """Writes weights, optimizer state and progress; every rank takes part.

    Args:
        directory: Exists and is empty, on a file system that all ranks share.
        training: What is written.
        progress: Saved beside it.
        ranks: The processes of the run.
        asynchronous: Whether files are written while training goes on.
    """
    if ranks.rank == 0:
        (directory / _OPTIMIZER).mkdir()
        scaler = training.loss_scaler
        write_json(
            directory / _STATE,
            {
                "progress": dataclasses.asdict(progress),
                "optimizer_step": training.state.step,
                "loss_scale": {k: getattr(scaler, k) for k in _SCALER} if scaler.dynamic else None,
            },
        )
    ranks.barrier()
    writer = ShardWriter(ranks, asynchronous=asynchronous)
    files = writer.write(directory, training.stem, _weights(training), split=training.split)
    if ranks.rank == 0 and len(set(files.values())) > 1:
        total = sum(entry.num_bytes for entry in _weights(training))
        index = {"metadata": {"total_size": total}, "weight_map": files}
        write_json(directory / f"{training.stem}.safetensors.index.json", index)
    writer.write(directory / _OPTIMIZER, "state", _optimizer_state(training))
    return writer


def _weights(training: Training) -> Iterator[Entry]:
    for name, parameter in training.parameters.items():
        size = math.prod(whole_shape(parameter)) * training.dtype.itemsize
        yield Entry(name, size, partial(_weight, training, parameter))


def _weight(training: Training, parameter: nn.Parameter) -> Tensor:
    return training.state.weight(parameter).to(training.dtype)


def _optimizer_state(training: Training) -> Iterator[Entry]:
    for name, parameter in training.parameters.items():
        size = math.prod(whole_shape(parameter)) * torch.float32.itemsize
        if training.dtype is not torch.float32:
            yield Entry(f"{name}.master", size, partial(training.state.weight, parameter))
        for key in MOMENTS:
            yield Entry(f"{name}.{key}", size, partial(training.state.moment, parameter, key))


def load(directory: Path, training: Training) -> Progress:
    """Restores weights and optimizer state in place and returns the progress.

    Args:
        directory: What `save` wrote, at this or another ZeRO stage, world size or precision.
        training: What is restored.

    Raises:
        TrainError: The checkpoint is of another engine, or of other parameters.
    """
    if not (directory / _STATE).is_file():
        raise TrainError(
            f"{directory} is no checkpoint of the deepspeed engine",
            f"start another run from its weights: --set model.init={directory.parent}",
        )
    stored = read_json(directory / _STATE)
    tensors = _Tensors(directory)
    tensors.check(training.parameters)
    for name, parameter in training.parameters.items():
        master = f"{name}.master"
        weight = tensors.read(master if master in tensors else name)
        training.state.set_weight(parameter, weight.float())
        for key in MOMENTS:
            training.state.set_moment(parameter, key, tensors.read(f"{name}.{key}"))
    training.state.step = stored["optimizer_step"]
    if training.loss_scaler.dynamic and stored["loss_scale"]:
        for key in _SCALER:
            setattr(training.loss_scaler, key, stored["loss_scale"][key])
    return Progress(**stored["progress"])


class _Tensors:
    """The tensors of a checkpoint by name, mapped from its files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._weights = _by_name(directory)
        self._all = self._weights | _by_name(directory / _OPTIMIZER)

    def check(self, parameters: dict[str, nn.Parameter]) -> None:
        """Raises where the weights are not those of the parameters."""
        found = {name: info.shape for name, (_, info) in self._weights.items()}
        expected = {name: tuple(whole_shape(p)) for name, p in parameters.items()}
        if found != expected:
            name = min(dict(found.items() ^ expected.items()))
            raise TrainError(
                f"{self._directory} holds other parameters than this run trains: {name!r} is "
                f"{found.get(name, 'not there')}, and here it is {expected.get(name, 'not there')}",
                "choose another run.dir, or the model and lora keys that the run began with",
            )

    def __contains__(self, name: str) -> bool:
        return name in self._all

    def read(self, name: str) -> Tensor:
        """Returns a tensor."""
        file, _ = self._all[name]
        return file.read(name)


def _by_name(directory: Path) -> dict[str, tuple[WeightFile, TensorInfo]]:
    files = [open_weight_file(path) for path in sorted(directory.glob("*.safetensors"))]
    return {name: (file, info) for file in files for name, info in file.tensors().items()}
