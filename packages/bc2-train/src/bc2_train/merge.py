"""Merges the adapters that a run has trained into the weights they were trained beside."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.convert import convert
from bc2_ckpt.files import read_json
from bc2_ckpt.filters.base import Filter
from bc2_ckpt.formats.hf.files import open_weight_file
from bc2_ckpt.formats.protocol import CheckpointReader
from bc2_train import config as configuration
from bc2_train.checkpoints import CheckpointFolder
from bc2_train.errors import TrainError
from bc2_train.ranks import SingleRank

_PREFIX = "base_model.model."
"""What PEFT puts before the name of a layer."""


def merge(run: Path, output: Path, *, overwrite: bool = False) -> Path:
    """Writes the model of a run with its newest adapters merged in, in the Hugging Face format.

    The output is written tensor by tensor, and appears whole or not at all.

    Args:
        run: A run directory with ``lora`` in its configuration.
        output: The directory to make.
        overwrite: Whether to replace what stands there.

    Returns:
        The checkpoint whose adapters were taken.

    Raises:
        Bc2Error: The run has no adapters, the weights are gone, or the output exists.
    """
    config_file = run / "config.yaml"
    if not config_file.is_file():
        raise TrainError(f"{run} is no run directory: it has no config.yaml")
    config = configuration.load(str(config_file))
    if config.lora is None:
        raise TrainError(
            f"the run {run} trained no adapters",
            f"bc2-ckpt convert --input {config.checkpoint_dir} --output {output} --to hf",
        )
    checkpoints = CheckpointFolder(
        config.checkpoint_dir,
        keep=0,
        keep_every=0,
        describe=lambda directory: None,
        ranks=SingleRank(),
    )
    newest = checkpoints.newest_whole()
    if newest is None:
        raise TrainError(f"the run {run} has saved no checkpoint yet")
    base = open_checkpoint(config.model.init)
    convert(MergedReader(base, newest), output, "hf", overwrite)
    return newest


class MergedReader(Filter):
    """Weights with adapters merged in: W + alpha / rank * B A, in the dtype of W.

    Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685,
    section 4.1; the file layout is PEFT's.

    Args:
        base: The weights that the adapters were trained beside.
        adapter: A directory with ``adapter_config.json`` and ``adapter_model.safetensors``.

    Raises:
        TrainError: An adapter is of a layer that the model does not have.
    """

    def __init__(self, base: CheckpointReader, adapter: Path) -> None:
        super().__init__(base)
        settings = read_json(adapter / "adapter_config.json")
        self._scale = settings["lora_alpha"] / settings["r"]
        self._factors: dict[str, Tensor] = {}
        file = open_weight_file(adapter / "adapter_model.safetensors")
        for name in file.tensors():
            self._factors[name.removeprefix(_PREFIX)] = file.read(name).float()
        for name in self._factors:
            layer = name.partition(".lora_")[0]
            if f"{layer}.weight" not in base.tensors():
                raise TrainError(
                    f"{adapter} has an adapter of {layer}, which {base.source} does not have",
                    "model.init must be the checkpoint that the run began with",
                )

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """Returns one tensor or rows of it, with its adapter merged in where it has one."""
        weight = self._reader.read(name, rows)
        layer = name.removesuffix(".weight")
        outer = self._factors.get(f"{layer}.lora_B.weight")
        if outer is None:
            return weight
        inner = self._factors[f"{layer}.lora_A.weight"]
        part = outer if rows is None else outer[rows]
        merged: Tensor = weight.float() + self._scale * (part @ inner)
        return merged.to(weight.dtype)
