"""The data, the configuration and the process of the training benchmarks."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from bc2_ckpt.config import ModelConfig
from bc2_model.weights import RandomWeights
from bc2_train import runtime, schema
from bc2_train.config import RunConfig
from bc2_train.data import Batch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))


def run_config(args: argparse.Namespace, engine: str, **groups: dict[str, Any]) -> RunConfig:
    """Returns a run in float32 on the CPU; its paths are only as good as `groups` makes them."""
    values: dict[str, Any] = {
        "engine": engine,
        "device": "cpu",
        "precision": "float32",
        "model": {"config": "unused"},
        "data": {"kind": "pretrain", "prefix": "unused", "seq_length": args.seq_length},
        "batch": {"micro": args.batch, "global": args.batch},
        "optimizer": {"lr": 1e-4},
        "train": {"iterations": 1},
        "run": {"dir": "unused"},
    }
    for name, group in groups.items():
        values[name] = {**values.get(name, {}), **group}
    return schema.build(RunConfig, values)


def weights(config: RunConfig, model: ModelConfig) -> RandomWeights:
    """Returns the initial weights, the same for every implementation."""
    return RandomWeights(model, config.train.seed)


def one_batch(args: argparse.Namespace) -> Batch:
    """Returns random tokens, all of which are trained."""
    generator = torch.Generator().manual_seed(0)
    shape = (args.batch, args.seq_length + 1)
    tokens = torch.randint(1, args.vocabulary, shape, generator=generator)
    return Batch(
        tokens=tokens[:, :-1],
        labels=tokens[:, 1:],
        loss_mask=torch.ones(shape[0], args.seq_length, dtype=torch.bool),
        segment_ids=None,
    )


@contextmanager
def single_process(args: argparse.Namespace) -> Iterator[Path]:
    """Makes this process a whole job; yields a folder for what it writes."""
    warnings.filterwarnings("ignore", module=r"megatron\..*")
    logging.disable(logging.WARNING)
    torch.set_num_threads(args.threads)
    os.environ["LOCAL_RANK"] = "0"  # DeepSpeed asks for it
    runtime.install("cpu")
    with tempfile.TemporaryDirectory() as folder:
        store = dist.FileStore(f"{folder}/store", 1)
        dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        yield Path(folder)
        dist.destroy_process_group()
