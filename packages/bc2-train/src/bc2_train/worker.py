"""One training process: ``python -m bc2_train.worker CONFIG``, started by the launcher or torchrun.

Rank and world size come from the environment variables that torchrun sets: RANK, LOCAL_RANK,
WORLD_SIZE, MASTER_ADDR, MASTER_PORT.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Sequence
from dataclasses import replace
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
from bc2_train.exit_status import PEER_LOST, PREEMPTED
from bc2_train.heartbeat import Heartbeat
from bc2_train.launch.stacks import dump_on_signal
from bc2_train.run_status import ATTEMPT_VARIABLE, Outcome, new_attempt, recorded

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    import torch

    from bc2_ckpt.formats.protocol import CheckpointReader
    from bc2_train.data import BatchLoader
    from bc2_train.data.sample import Dataset
    from bc2_train.loop import Trainer


def main(argv: Sequence[str] | None = None) -> int:
    """Trains as the configuration file says and returns the exit status."""
    parser = make_parser("bc2_train.worker", __doc__ or "", __version__)
    parser.add_argument("config", type=Path, help="the config.yaml of a run directory")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(carry_out=_run)
    return run_command(parser, argv)


def _run(args: argparse.Namespace) -> int:
    dump_on_signal()
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    return train(configuration.load(str(args.config)))


def _end_with_launcher() -> None:
    """Ends this process when the launcher is gone: its end of our stdin closes, however it died."""
    os.read(0, 1)  # not sys.stdin: its lock would be held when the interpreter shuts down
    os.killpg(0, signal.SIGKILL)  # the launcher made a group of this process and its children


def train(config: RunConfig) -> int:
    """Trains in this process, which is one of WORLD_SIZE.

    Returns:
        0 where the run reached its end, `exit_status.PREEMPTED` where it saved and ended early.

    Raises:
        Bc2Error: The configuration does not fit the processes, the data or the checkpoint.
    """
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    attempt = os.environ.get(ATTEMPT_VARIABLE)
    heartbeat = Heartbeat(
        config.run_dir,
        attempt=attempt or new_attempt(),
        rank=rank,
        world_size=world_size,
        iterations=config.train.iterations,
    )
    # torchrun knows nothing of a run's status: its first rank keeps it then.
    keeps_status = rank == 0 and attempt is None
    status = recorded(config.run_dir, heartbeat.attempt) if keeps_status else None
    with status or contextlib.nullcontext(Outcome()) as outcome, heartbeat:
        try:
            outcome.exit_status = _join_and_train(config, rank, world_size, heartbeat)
        except Exception as error:
            error.add_note(
                f"rank {rank} on {socket.gethostname()}, after {heartbeat.iteration:,} steps"
            )
            raise
    return outcome.exit_status


def _join_and_train(config: RunConfig, rank: int, world_size: int, heartbeat: Heartbeat) -> int:
    # megatron-core warns at import of each optional library that is absent.
    warnings.filterwarnings("ignore", module=r"megatron\..*")
    # Its checkpoints still use ShardedTensor, which torch calls deprecated at every save.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\..*")
    import torch.distributed as dist

    from bc2_train import layout, runtime
    from bc2_train.ranks import DistributedRanks

    _configure_logging(config, rank)
    model = ModelConfig.load(config.model.config)
    layout.check(config, model, world_size)
    device = runtime.install(config.device)
    if config.train.deterministic:
        runtime.make_deterministic(device.type)
    patience = datetime.timedelta(seconds=config.patience)
    dist.init_process_group(runtime.backend(device), timeout=patience)

    try:
        heartbeat.join(DistributedRanks(device).gather(heartbeat.attempt)[0])
        status = _train(config, make_trainer(config, model, device, heartbeat))
    except RuntimeError as error:
        if _is_peer_loss(error):
            raise PeerLostError(
                f"rank {rank} on {socket.gethostname()} lost contact with another rank: {error}",
                "the rank that ended first says why; the same command goes on from the newest "
                "checkpoint",
            ) from error
        raise
    dist.destroy_process_group()
    return status


def _train(config: RunConfig, trainer: Trainer) -> int:
    from bc2_train.environment import record_environment
    from bc2_train.metrics import MetricsWriter
    from bc2_train.metrics.sinks import open_sinks
    from bc2_train.stop import Preempted

    progress = trainer.resume()
    trainer.heartbeat.enter("starting", progress.iteration)
    first = trainer.ranks.rank == 0
    record_environment(config, trainer.ranks, trainer.device, progress.iteration)
    sinks = open_sinks(config, trainer.device) if first else []
    writer = MetricsWriter(config.run_dir, progress.iteration, sinks) if first else None
    with writer or contextlib.nullcontext():
        try:
            trainer.run(progress, writer.write if writer else lambda metrics: None)
        except Preempted as preempted:
            log.info("%s: the same command goes on from there", preempted)
            trainer.heartbeat.enter("preempted")
            return PREEMPTED
    return 0


class PeerLostError(TrainError):
    """Another rank is gone."""

    exit_status = PEER_LOST


def _is_peer_loss(error: RuntimeError) -> bool:
    """Tells whether an error says that another process went away or stopped answering."""
    import torch.distributed as dist

    signs = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "imed out")
    return isinstance(error, dist.DistError) or any(sign in str(error) for sign in signs)


def make_trainer(
    config: RunConfig, model: ModelConfig, device: torch.device, heartbeat: Heartbeat
) -> Trainer:
    """Returns everything that a run needs, in a process that is joined with the others.

    Args:
        config: The run.
        model: Its dimensions.
        device: This process's device.
        heartbeat: This rank's.

    Raises:
        Bc2Error: Data or weights do not fit the configuration.
    """
    from bc2_model.weights import RandomWeights
    from bc2_train.checkpoints import CheckpointFolder
    from bc2_train.data import BatchLoader, build_datasets, padding
    from bc2_train.data.tokenizers import of_another_tokenizer
    from bc2_train.engines.build import build_engine
    from bc2_train.loop import Trainer
    from bc2_train.ranks import DistributedRanks
    from bc2_train.stop import StopRequest

    initial = _initial_checkpoint(config, model)
    weights = initial or RandomWeights(model, config.train.seed)
    engine = build_engine(config, model, weights, device)
    ranks = DistributedRanks(device)

    def loader(dataset: Dataset, shuffle: bool) -> BatchLoader:
        return BatchLoader(
            dataset,
            padding=padding(config, dataset),
            micro=config.batch.micro,
            global_=config.batch.global_,
            rank=engine.data_parallel_rank,
            size=engine.data_parallel_size,
            shuffle=shuffle,
            seed=config.train.seed,
            vocab_size=model.vocab_size,
            device=device,
        )

    def beside(name: str) -> Path | None:
        return initial.beside(name) if initial else _existing(Path(config.model.config) / name)

    def describe(directory: Path) -> None:
        write_json(directory / "config.json", replace(model, dtype=config.precision).to_hf())
        carry(beside, directory)

    if ranks.rank == 0:
        for warning in of_another_tokenizer(_prefixes(config), beside("tokenizer.model")):
            log.warning("%s", warning)
    training, evaluation = build_datasets(config, ranks)
    # megatron-core's dataset, which pretraining shuffles with, has shuffled already.
    shuffle = config.data.shuffle and config.data.kind == "instruction"
    return Trainer(
        config=config,
        model=model,
        engine=engine,
        loader=loader(training, shuffle),
        evaluation=None if evaluation is None else loader(evaluation, shuffle=False),
        checkpoints=CheckpointFolder(
            config.checkpoint_dir,
            keep=config.checkpoint.keep,
            keep_every=config.checkpoint.keep_every,
            describe=describe,
            ranks=ranks,
        ),
        ranks=ranks,
        device=device,
        stop=StopRequest(),
        heartbeat=heartbeat,
    )


def _prefixes(config: RunConfig) -> list[str]:
    """Returns the prefixes of all data of the run."""
    evaluation = [config.evaluation.prefix] if config.evaluation.prefix else []
    return [config.data.prefix, *config.data.blend, *evaluation]


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
