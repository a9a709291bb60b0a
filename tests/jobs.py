"""What worker groups run: training on an engine, seen from inside a rank."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.config import ModelConfig
from bc2_train import layout, schema
from bc2_train.config import RunConfig
from bc2_train.data import Batch, BatchLoader, Padding, build_datasets, padding
from bc2_train.engines.base import Engine, Progress
from bc2_train.engines.build import build_engine
from bc2_train.ranks import DistributedRanks

CPU = torch.device("cpu")


def make_engine(config: RunConfig) -> Any:
    """Returns the engine of a run, whose weights come from ``model.init``."""
    model = ModelConfig.load(config.model.config)
    layout.check(config, model, torch.distributed.get_world_size())
    return build_engine(config, model, open_checkpoint(Path(config.model.init)), CPU)


def make_loader(config: RunConfig, engine: Engine) -> BatchLoader:
    """Returns the loader of this rank, in file order."""
    dataset, _ = build_datasets(config, DistributedRanks(CPU))
    return BatchLoader(
        dataset,
        padding=padding(config, dataset),
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


def train_and_save(
    values: dict[str, Any], directory: str, save_after: int
) -> list[tuple[float, float]]:
    """Trains, saves after some steps, in the background or not, and trains on to the end."""
    config = schema.build(RunConfig, values)
    engine = make_engine(config)
    results = []
    for step, batches in enumerate(_steps(config, engine)):
        if step == save_after:
            path = Path(directory)
            if torch.distributed.get_rank() == 0:
                path.mkdir(parents=True)
            torch.distributed.barrier()
            pending = engine.save(path, Progress(iteration=step))
        result = engine.train_step(batches, config.optimizer.lr)
        results.append((result.loss, result.grad_norm))
    assert pending.done(wait=True)
    return results


def load_and_train(values: dict[str, Any], directory: str) -> list[tuple[float, float]]:
    """Takes up a checkpoint and trains to the end; returns the steps taken."""
    config = schema.build(RunConfig, values)
    engine = make_engine(config)
    progress = engine.load(Path(directory))
    loader = make_loader(config, engine)
    results = []
    for step in range(progress.iteration, config.train.iterations):
        result = engine.train_step(loader.step(step), config.optimizer.lr)
        results.append((result.loss, result.grad_norm))
    return results


def train_with_a_bad_gradient(values: dict[str, Any], bad_step: int) -> list[tuple[float, float]]:
    """Trains with one NaN in one gradient of the last rank's first parameter in one step."""
    config = schema.build(RunConfig, values)
    engine = make_engine(config)
    last = torch.distributed.get_rank() == torch.distributed.get_world_size() - 1
    parameter = next(engine.chunks[0].parameters())
    current = [0]

    def poison(weight: torch.nn.Parameter) -> None:
        if last and current[0] == bad_step:
            assert weight.grad is not None
            weight.grad.view(-1)[-1] = float("nan")

    parameter.register_post_accumulate_grad_hook(poison)
    results = []
    for step, batches in enumerate(_steps(config, engine)):
        current[0] = step
        result = engine.train_step(batches, config.optimizer.lr)
        assert result.skipped == (step == bad_step)
        results.append((result.loss, result.grad_norm))
    return results


def evaluate(values: dict[str, Any]) -> list[tuple[float, float]]:
    """Returns the loss of the first step's batches by evaluation, and by training on them."""
    config = schema.build(RunConfig, values)
    engine = make_engine(config)
    batches = make_loader(config, engine).step(0)
    evaluated = engine.evaluate(batches)
    trained = engine.train_step(batches, config.optimizer.lr)
    return [(evaluated.loss, evaluated.tokens), (trained.loss, trained.tokens)]


def _steps(config: RunConfig, engine: Engine) -> Iterator[list[Batch]]:
    loader = make_loader(config, engine)
    for step in range(config.train.iterations):
        yield loader.step(step)


def train_padded(values: dict[str, Any], *, full: bool) -> tuple[list[tuple[float, float]], int]:
    """Trains with rows padded to the sequence length, or to what each micro batch needs.

    Returns what `train` returns, and the positions of all steps.
    """
    config = schema.build(RunConfig, values)
    engine = make_engine(config)
    loader = make_loader(config, engine)
    if full:
        loader.padding = Padding(longest=config.data.seq_length)
    results = [
        engine.train_step(loader.step(step), config.optimizer.lr)
        for step in range(config.train.iterations)
    ]
    positions = sum(result.positions for result in results)
    return [(result.loss, result.grad_norm) for result in results], positions
