"""Opens a checkpoint of any format."""

from __future__ import annotations

from pathlib import Path

from bc2_ckpt.config import ModelConfig
from bc2_ckpt.errors import NotACheckpointError, WrittenOnlyError
from bc2_ckpt.formats.hf.reader import HfReader, weight_files
from bc2_ckpt.formats.megatron_legacy.directory import find as find_legacy
from bc2_ckpt.formats.megatron_legacy.reader import LegacyReader
from bc2_ckpt.formats.protocol import CheckpointReader
from bc2_ckpt.formats.torch_dist.metadata import METADATA
from bc2_ckpt.formats.torch_dist.reader import TorchDistReader, is_run, newest_iteration


def open_checkpoint(path: str | Path, config: ModelConfig | None = None) -> CheckpointReader:
    """Opens a checkpoint, whose format is detected.

    Args:
        path: A Hugging Face directory, a distributed checkpoint, a legacy one of Megatron, or the
            ``checkpoints/`` folder of a run, of which the newest whole checkpoint is taken.
        config: The model; None to read the config.json that belongs to the checkpoint.

    Returns:
        A reader whose names and shapes match the config.

    Raises:
        NotACheckpointError: Nothing at `path` looks like a checkpoint, or it is of a format that
            is written only.
        CkptError: Something is missing, damaged, unsafe or does not match the config.
    """
    directory = Path(path)
    if not directory.is_dir():
        what = "a file" if directory.exists() else "missing"
        raise NotACheckpointError(f"{directory} is {what}, not a checkpoint directory")
    if legacy := find_legacy(directory):
        return LegacyReader(legacy, config)
    if is_run(directory):
        directory = newest_iteration(directory)
    if (directory / METADATA).exists():
        return TorchDistReader(directory, config)
    if (directory / "adapter_config.json").is_file():
        raise NotACheckpointError(
            f"{directory} holds adapters, which are no model without the weights they belong to",
            "bc2-train merge-lora RUN --output DIR",
        )
    if weight_files(directory):
        return HfReader(directory, config)
    if any(directory.glob("*.gguf")):
        raise WrittenOnlyError(
            f"{directory} holds GGUF for llama.cpp, which bc2-ckpt writes but does not read",
            "take the checkpoint that it was made from",
        )
    inner = directory / "checkpoints"
    raise NotACheckpointError(
        f"{directory} holds no checkpoint: no safetensors or pytorch_model.bin, no {METADATA}, "
        "no mp_rank_* or iter_* directory",
        f"did you mean {inner}?" if inner.is_dir() else "",
    )
