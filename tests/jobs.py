"""What worker groups run: training on megatron-core, seen from inside a rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.config import ModelConfig
from bc2_train import layout, schema
from bc2_train.config import RunConfig
from bc2_train.data import BatchLoader, build_dataset
from bc2_train.engines.megatron import MegatronEngine

CPU = torch.device("cpu")


def make_engine(config: RunConfig) -> MegatronEngine:
    """Returns an engine whose weights come from ``model.init``."""
    model = ModelConfig.load(config.model.config)
    layout.check(config, model, torch.distributed.get_world_size())
    return MegatronEngine(config, model, open_checkpoint(Path(config.model.init)), CPU)


def make_loader(config: RunConfig, engine: MegatronEngine) -> BatchLoader:
    """Returns the loader of this rank, in file order."""
    return BatchLoader(
        build_dataset(config),
        micro=config.batch.micro,
        global_=config.batch.global_,
        rank=engine.data_parallel_rank,
        size=engine.data_parallel_size,
        shuffle=False,
        seed=config.train.seed,
        vocab_size=ModelConfig.load(config.model.config).vocab_size,
        device=CPU,
    )


def train(values: dict[str, Any]) -> list[tuple[float, float]]:
    """Trains at a constant learning rate and returns each step's loss and gradient norm."""
    config = schema.build(RunConfig, values)
    engine = make_engine(config)
    loader = make_loader(config, engine)
    results = [
        engine.train_step(loader.step(step), config.optimizer.lr)
        for step in range(config.train.iterations)
    ]
    return [(result.loss, result.grad_norm) for result in results]


def logits(values: dict[str, Any], tokens: torch.Tensor, segments: torch.Tensor | None) -> Any:
    """Returns the training-mode logits (batch, seq, vocab) where the pipeline ends, else None."""
    engine = make_engine(schema.build(RunConfig, values))
    (model,) = engine.chunks
    with torch.no_grad():
        return _logits(model, tokens, segments)


def greedy(values: dict[str, Any], prompt: torch.Tensor, new_tokens: int) -> torch.Tensor:
    """Returns prompt (1, n) and the most likely continuation, without a cache."""
    engine = make_engine(schema.build(RunConfig, values))
    (model,) = engine.chunks
    model.eval()
    tokens = prompt
    with torch.no_grad():
        for _ in range(new_tokens):
            best = _logits(model, tokens, None)[:, -1].argmax(-1)
            tokens = torch.cat([tokens, best[:, None]], dim=1)
    return tokens


def gradients(values: dict[str, Any], tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """Returns this rank's gradients of the mean next-token loss, by megatron name."""
    engine = make_engine(schema.build(RunConfig, values))
    (model,) = engine.chunks
    (wrapped,) = engine.wrapped
    wrapped.zero_grad_buffer()
    losses = wrapped(tokens[:, :-1], None, None, labels=tokens[:, 1:])
    losses.mean().backward()
    return {name: parameter.main_grad for name, parameter in model.named_parameters()}


def _logits(
    model: torch.nn.Module, tokens: torch.Tensor, segments: torch.Tensor | None
) -> torch.Tensor:
    out = model(tokens, None, segments, runtime_gather_output=True)
    return out[..., : model.config.model.vocab_size]
