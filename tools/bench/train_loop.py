"""Measures what a run does besides computing steps: the loop around the engine, and checkpoints.

`overhead` runs the whole training loop, with data, metrics and logs, and prints the share of its
CPU seconds that is spent outside the engine's train_step. `stall` saves the same run in the
foreground and in the background, in turns, and prints for how long each kept the loop from
computing: the wall time in which it saved or asked whether a save is finished, least of the rounds.

    python tools/bench/train_loop.py overhead
    python tools/bench/train_loop.py stall --seq-length 512
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from model_shape import add_arguments, dimensions
from training_setup import run_config, single_process

from bc2_data.indexed import IndexedWriter, bin_path, idx_path
from bc2_train import worker
from bc2_train.engines.base import Progress, StepResult
from bc2_train.heartbeat import Heartbeat
from bc2_train.loop import Trainer
from bc2_train.metrics import MetricsWriter


class Timed:
    """Stands for an object, some of whose methods are timed.

    Attributes:
        wall: Seconds in these methods.
        cpu: CPU seconds of all threads in these methods.
    """

    def __init__(self, target: Any, *methods: str) -> None:
        self._target = target
        self._methods = methods
        self.wall = self.cpu = 0.0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name not in self._methods:
            return found

        def timed(*args: Any, **options: Any) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                return found(*args, **options)
            finally:
                self.wall += time.perf_counter() - wall
                self.cpu += time.process_time() - cpu

        return timed


def trainer(args: argparse.Namespace, folder: Path, **groups: dict[str, Any]) -> Trainer:
    """Returns a run on random data in a folder of its own."""
    folder.mkdir()
    model = dimensions(args)
    (folder / "config.json").write_text(json.dumps(model.to_hf()))
    prefix = folder / "data_text_document"
    draw = np.random.default_rng(0)
    with IndexedWriter(bin_path(prefix), idx_path(prefix)) as writer:
        for _ in range(64):
            writer.add([draw.integers(3, args.vocabulary, args.seq_length).astype(np.int32)])
    config = run_config(
        args,
        args.engine,
        model={"config": str(folder)},
        data={"prefix": str(prefix)},
        run={"dir": str(folder)},
        **groups,
    )
    heartbeat = Heartbeat(
        folder, attempt="bench", rank=0, world_size=1, iterations=config.train.iterations
    )
    return worker.make_trainer(config, model, torch.device("cpu"), heartbeat)


def run(trainer: Trainer) -> float:
    """Carries out a run as a worker does; returns its CPU seconds."""
    start = time.process_time()
    with MetricsWriter(trainer.config.run_dir, 0) as writer:
        trainer.run(Progress(), writer.write)
    return time.process_time() - start


def overhead(args: argparse.Namespace, folder: Path) -> None:
    """Prints the share of the loop outside the engine's steps."""
    whole = trainer(args, folder / "run", train={"iterations": args.steps})
    engine = Timed(whole.engine, "train_step")
    checkpoints = Timed(whole.checkpoints, "save", "finish")
    total = run(replace(whole, engine=engine, checkpoints=checkpoints)) - checkpoints.cpu
    share = 1 - engine.cpu / total
    print(
        f"{args.engine}: {args.steps} steps, {total / args.steps:.3f} CPU s a step, of which "
        f"{(total - engine.cpu) / args.steps * 1000:.1f} ms, {share:.2%}, outside the engine"
    )


def stall(args: argparse.Namespace, folder: Path) -> None:
    """Prints how long a checkpoint stops a run, in the foreground and in the background."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for number in range(args.rounds):
        for asynchronous in seconds:
            seconds[asynchronous].append(
                stalled(args, folder / f"{number}-{asynchronous}", asynchronous)
            )
    foreground, background = min(seconds[False]), min(seconds[True])
    print(
        f"{args.engine}: synchronous {foreground:.3f} s, asynchronous {background:.3f} s, "
        f"{background / foreground:.1%}"
    )


def stalled(args: argparse.Namespace, folder: Path, asynchronous: bool) -> float:
    """Returns for how many seconds the first of two checkpoints of a run stops it."""
    whole = trainer(
        args,
        folder,
        train={"iterations": 2 * args.steps},
        checkpoint={"interval": args.steps, "asynchronous": asynchronous},
    )
    checkpoints = Timed(whole.checkpoints, "save", "finish")
    seconds = []

    class Engine(Timed):
        """Notes the stall before the second checkpoint, which the end of the run waits for."""

        def train_step(self, batches: Sequence[Any], learning_rate: float) -> StepResult:
            seconds.append(checkpoints.wall)
            return self._target.train_step(batches, learning_rate)

    run(replace(whole, engine=Engine(whole.engine), checkpoints=checkpoints))
    first = folder / "checkpoints" / f"iter_{args.steps:07d}"
    assert first.is_dir()
    return seconds[-1]


def main() -> None:
    """Parses the arguments and measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["overhead", "stall"])
    add_arguments(parser)
    parser.add_argument("--engine", choices=["megatron", "deepspeed"], default="megatron")
    parser.add_argument("--steps", type=int, default=5, help="of a run, or to a checkpoint")
    parser.add_argument("--rounds", type=int, default=3, help="of stall")
    args = parser.parse_args()
    with single_process(args) as folder:
        {"overhead": overhead, "stall": stall}[args.what](args, folder)


if __name__ == "__main__":
    main()
