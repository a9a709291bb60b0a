"""Times training steps of both engines against the same training written the official way.

The official way is an eager loop over tests/reference_model.py: plain float32 PyTorch with a
(heads, seq, seq) bias, whole scores and whole logits, clipping and AdamW as in torch. All start
from the same weights and take one step a round on the same tokens, in turns, in one process; the
losses that are printed must agree. Tokens a second are of the fastest step, by the wall clock and
by the CPU seconds of all threads.

    python tools/bench/train.py --position-embedding alibi      # the shape of the 13B
    python tools/bench/train.py --position-embedding rotary     # the shape of the 7B
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from model_shape import add_arguments, dimensions
from training_setup import (
    one_batch,
    run_config,
    single_process,
    weights,
)

from bc2_ckpt.config import ModelConfig
from bc2_ckpt.layout import ParameterLayout
from bc2_train.config import RunConfig
from bc2_train.data import Batch
from bc2_train.engines.build import build_engine

Step = Callable[[], float]

CPU = torch.device("cpu")


def official(config: RunConfig, model: ModelConfig, batch: Batch) -> Step:
    """Returns a step of the official way, which returns the loss."""
    from reference_model import ReferenceModel

    source = weights(config, model)
    names = ParameterLayout(model).hf_shapes()
    reference = ReferenceModel(model, {name: source.read(name) for name in names})
    parameters = list(reference.weights.values())
    settings = config.optimizer
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, settings.lr, settings.betas, settings.eps)
    tokens = torch.cat([batch.tokens, batch.labels[:, -1:]], dim=1)

    def step() -> float:
        optimizer.zero_grad()
        loss = reference.loss(tokens, tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimizer.step()
        return loss.item()

    return step


def ours(config: RunConfig, model: ModelConfig, batch: Batch) -> Step:
    """Returns a step of an engine, which returns the loss."""
    engine = build_engine(config, model, weights(config, model), CPU)
    return lambda: engine.train_step([batch], config.optimizer.lr).loss


@dataclass
class Measured:
    """What the rounds of one implementation took."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    loss: float = 0.0

    def add(self, step: Step) -> None:
        """Takes one step."""
        start, cpu_start = time.perf_counter(), time.process_time()
        self.loss = step()
        self.wall.append(time.perf_counter() - start)
        self.cpu.append(time.process_time() - cpu_start)


def measure(args: argparse.Namespace) -> None:
    """Prints one line an implementation."""
    model = dimensions(args)
    batch = one_batch(args)
    steps: dict[str, Step] = {}
    for name in args.only:
        engine = "megatron" if name == "official" else name
        config = run_config(args, engine, deepspeed={"zero_stage": args.zero_stage})
        steps[name] = (official if name == "official" else ours)(config, model, batch)
    rows = {name: Measured() for name in steps}
    for _ in range(args.rounds + 1):
        for name, step in steps.items():
            rows[name].add(step)
    report(args, rows)


def report(args: argparse.Namespace, rows: dict[str, Measured]) -> None:
    """Prints a table; the first step of each warms up and does not count."""
    tokens = args.batch * args.seq_length
    print(f"{'':10}{'step s':>8}{'CPU s':>8}{'tokens/s':>10}{'/CPU s':>8}{'speed':>7}{'CPU':>6}")
    for name, row in rows.items():
        wall, cpu = min(row.wall[1:]), min(row.cpu[1:])
        base = rows.get("official", row)
        print(
            f"{name:10}{wall:8.2f}{cpu:8.2f}{tokens / wall:10.0f}{tokens / cpu:8.0f}"
            f"{min(base.wall[1:]) / wall:7.2f}{min(base.cpu[1:]) / cpu:6.2f}"
            f"   last loss {row.loss:.6f}",
            flush=True,
        )


def main() -> None:
    """Parses the arguments and measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=3, help="after one to warm up")
    parser.add_argument("--zero-stage", type=int, default=1, help="of DeepSpeed")
    parser.add_argument("--only", nargs="+", default=["official", "deepspeed", "megatron"])
    args = parser.parse_args()
    with single_process(args):
        measure(args)


if __name__ == "__main__":
    sys.exit(main())
