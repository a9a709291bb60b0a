"""Low-rank adapters beside frozen weights, through PEFT."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bc2_train.config import RunConfig
from bc2_train.errors import TrainError

_NAME = "default"
_STORED_PREFIX = "base_model.model."


def attach(model: nn.Module, config: RunConfig) -> None:
    """Freezes a model and adds adapters in its own dtype, which do not change its output yet.

    Args:
        model: A BaichuanForCausalLM.
        config: A run with ``lora``.

    Raises:
        TrainError: PEFT is not installed.
    """
    peft = _peft()
    torch.manual_seed(config.train.seed)
    dtype = next(model.parameters()).dtype
    peft.inject_adapter_in_model(_settings(config), model, _NAME)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def stored_name(name: str) -> str:
    """Returns the name under which PEFT stores a parameter: without that of the adapter."""
    return _STORED_PREFIX + name.replace(f".{_NAME}.", ".")


def save_settings(config: RunConfig, directory: Path) -> None:
    """Writes ``adapter_config.json``, with which PEFT loads the adapters again."""
    _settings(config).save_pretrained(str(directory))


def _settings(config: RunConfig) -> Any:
    lora = config.lora
    assert lora is not None
    return _peft().LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        base_model_name_or_path=config.model.init,
    )


def _peft() -> Any:
    """Imports PEFT, which few runs need."""
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        raise TrainError(
            f"lora needs PEFT, which cannot be imported: {error}",
            "python3 -m pip install 'bc2-train[lora]'",
        ) from error
