"""What worker groups run with converted checkpoints: plain megatron-core loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from megatron.core import dist_checkpointing

from bc2_ckpt.formats.torch_dist.vetting import vet
from bc2_train import schema
from bc2_train.config import RunConfig
from jobs import make_engine, make_loader


def evaluate_distributed(values: dict[str, Any], directory: str) -> float:
    """Returns the loss of the first step's batches of a model that megatron-core has loaded.

    Args:
        values: The run; its own initial weights are forgotten.
        directory: A distributed checkpoint, loaded at the default strictness.
    """
    config = schema.build(RunConfig, values)
    engine = make_engine(config)
    _load(engine, Path(directory))
    loss: float = engine.evaluate(make_loader(config, engine).step(0)).loss
    return loss


def logits_distributed(
    values: dict[str, Any], directory: str, tokens: torch.Tensor
) -> torch.Tensor:
    """Returns the logits (batch, seq, vocab) of a model that megatron-core has loaded."""
    engine = make_engine(schema.build(RunConfig, values))
    _load(engine, Path(directory))
    (model,) = engine.chunks
    with torch.no_grad():
        logits: torch.Tensor = model(tokens, None, None, runtime_gather_output=True)
    return logits[..., : model.config.model.vocab_size]


def _load(engine: Any, directory: Path) -> None:
    vet(directory)
    for chunk in engine.chunks:
        for parameter in chunk.parameters():
            parameter.data.fill_(float("nan"))
        loaded = dist_checkpointing.load({"model": chunk.sharded_state_dict()}, str(directory))
        chunk.load_state_dict(loaded["model"])
