"""Loads a model and its tokenizer from a directory in the Hugging Face format, or says why not."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import torch
from safetensors import SafetensorError

from bc2_ckpt.config import ModelConfig
from bc2_model.errors import ModelError
from bc2_model.hf.modeling import BaichuanForCausalLM
from bc2_model.hf.tokenization import BaichuanTokenizer

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def load_model(
    directory: Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | Literal["auto"] = "auto",
) -> BaichuanForCausalLM:
    """Loads config.json and weights (safetensors or `.bin`, sharded or not) for evaluation.

    transformers draws weights that a checkpoint lacks at random and goes on; here that is an error.

    Args:
        directory: Holds config.json and the weights.
        device: Where the model goes.
        dtype: ``auto`` is the dtype that config.json names.

    Raises:
        CkptError: config.json is missing or no Baichuan model's.
        ModelError: There are no weights, or they are not those of this model.
    """
    ModelConfig.load(directory)
    if not any((directory / name).is_file() for name in WEIGHT_FILES):
        raise ModelError(
            f"{directory} holds no weights in the Hugging Face format",
            f"bc2-ckpt convert --input {directory} --output NEW_DIR --to hf",
        )
    try:
        model, report = BaichuanForCausalLM.from_pretrained(
            directory, dtype=dtype, output_loading_info=True, local_files_only=True
        )
    except (UnpicklingError, SafetensorError, EOFError, RuntimeError) as error:
        raise ModelError(
            f"{directory}: the weights cannot be read: {str(error).partition(chr(10))[0]}",
            f"bc2-ckpt verify {directory}",
        ) from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[problem]:
            names = sorted(map(str, report[problem]))
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ModelError(
                f"{directory}: {problem.replace('_keys', ' tensor')} {names[0]}{more}",
                f"bc2-ckpt verify {directory}",
            )
    return model.to(device).eval()


def load_tokenizer(directory: Path) -> BaichuanTokenizer:
    """Loads tokenizer.model and, where it exists, tokenizer_config.json.

    Raises:
        ModelError: There is no tokenizer.model.
    """
    if not (directory / "tokenizer.model").is_file():
        raise ModelError(
            f"{directory} holds no tokenizer.model",
            "copy tokenizer.model and tokenizer_config.json from the official release",
        )
    return BaichuanTokenizer.from_pretrained(directory, local_files_only=True)
