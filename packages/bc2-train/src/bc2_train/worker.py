"""One training process: ``python -m bc2_train.worker CONFIG``, started by the launcher or torchrun.

Rank and world size come from the environment variables that torchrun sets: RANK, LOCAL_RANK,
WORLD_SIZE, MASTER_ADDR, MASTER_PORT.
"""

from __future__ import annotations

import argparse
import datetime
import logging
import os
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.config import ModelConfig
from bc2_ckpt.files import write_json
from bc2_ckpt.formats.sidecars import carry
from bc2_data.command import make_parser
from bc2_data.command import run as run_command
from bc2_train import __version__
from bc2_train import config as configuration
from bc2_train.config import RunConfig
from bc2_train.errors import TrainError

if TYPE_CHECKING:
    import torch

    from bc2_ckpt.formats.protocol import CheckpointReader
    from bc2_train.loop import Trainer


def main(argv: Sequence[str] | None = None) -> int:
    """Trains as the configuration file says and returns the exit status."""
    parser = make_parser("bc2_train.worker", __doc__ or "", __version__)
    parser.add_argument("config", type=Path, help="the config.yaml of a run directory")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(run=_run)
    return run_command(parser, argv)


def _run(args: argparse.Namespace) -> None:
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    train(configuration.load(str(args.config)))


def _end_with_launcher() -> None:
    """Ends this process when the launcher is gone: its end of our stdin closes, however it died."""
    os.read(0, 1)  # not sys.stdin: its lock would be held when the interpreter shuts down
    os._exit(1)


def train(config: RunConfig) -> None:
    """Trains in this process, which is one of WORLD_SIZE.

    Raises:
        Bc2Error: The configuration does not fit the processes, the data or the checkpoint.
    """
    # megatron-core warns at import of each optional library that is absent.
    warnings.filterwarnings("ignore", module=r"megatron\..*")
    # Its checkpoints still use ShardedTensor, which torch calls deprecated at every save.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\..*")
    import torch.distributed as dist

    from bc2_train import layout, runtime
    from bc2_train.metrics import MetricsWriter

    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    _configure_logging(config, rank)
    model = ModelConfig.load(config.model.config)
    layout.check(config, model, world_size)
    device = runtime.install(config.device)
    dist.init_process_group(runtime.backend(device), timeout=datetime.timedelta(minutes=30))

    trainer = _trainer(config, model, device)
    progress = trainer.resume()
    if rank == 0:
        with MetricsWriter(config.run_dir, progress.iteration) as writer:
            trainer.run(progress, writer.write)
    else:
        trainer.run(progress, lambda metrics: None)
    dist.destroy_process_group()


def _trainer(config: RunConfig, model: ModelConfig, device: torch.device) -> Trainer:
    import torch.distributed as dist

    from bc2_model.weights import RandomWeights
    from bc2_train.checkpoints import CheckpointFolder
    from bc2_train.data import BatchLoader, build_dataset
    from bc2_train.engines.megatron import MegatronEngine
    from bc2_train.loop import Trainer

    initial = _initial_checkpoint(config, model)
    weights = initial or RandomWeights(model, config.train.seed)
    engine = MegatronEngine(config, model, weights, device)
    loader = BatchLoader(
        build_dataset(config),
        micro=config.batch.micro,
        global_=config.batch.global_,
        rank=engine.data_parallel_rank,
        size=engine.data_parallel_size,
        # megatron-core's dataset, which pretraining shuffles with, has shuffled already.
        shuffle=config.data.shuffle and config.data.kind == "instruction",
        seed=config.train.seed,
        vocab_size=model.vocab_size,
        device=device,
    )

    def describe(directory: Path) -> None:
        write_json(directory / "config.json", model.to_hf())
        folder = Path(config.model.config)
        carry(initial.beside if initial else lambda name: _existing(folder / name), directory)

    checkpoints = CheckpointFolder(
        config.checkpoint_dir,
        keep=config.checkpoint.keep,
        describe=describe,
        is_first=dist.get_rank() == 0,
        barrier=dist.barrier,
    )
    return Trainer(
        config=config,
        model=model,
        engine=engine,
        loader=loader,
        checkpoints=checkpoints,
        device=device,
        devices=dist.get_world_size(),
    )


def _initial_checkpoint(config: RunConfig, model: ModelConfig) -> CheckpointReader | None:
    """Returns the checkpoint that the run starts from, or None where it starts at random.

    Raises:
        TrainError: The checkpoint is of another model.
    """
    if config.model.init == "random":
        return None
    reader = open_checkpoint(Path(config.model.init))
    for name in ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads"):
        ours, theirs = getattr(model, name), getattr(reader.config, name)
        if ours != theirs:
            raise TrainError(
                f"model.init is of another model: its {name} is {theirs}, that of model.config "
                f"is {ours}",
                f"add --set model.config={config.model.init}",
            )
    return reader


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _configure_logging(config: RunConfig, rank: int) -> None:
    """Sends the first rank's messages to the terminal and to log.txt; of the others, warnings."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if rank == 0:
        handlers.append(logging.FileHandler(config.run_dir / "log.txt", encoding="utf-8"))
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=handlers)
    logging.getLogger("bc2_train").setLevel(logging.INFO if rank == 0 else logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
