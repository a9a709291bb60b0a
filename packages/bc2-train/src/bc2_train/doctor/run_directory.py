"""Has the run directory room for the checkpoints, and is its disk fast enough?"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from bc2_ckpt.config import ModelConfig
from bc2_ckpt.preflight import existing_parent
from bc2_train.config import RunConfig
from bc2_train.doctor.finding import Finding, ok, problem, warning

_SAMPLE = 64 * 2**20
_SLOW = 100e6  # bytes a second; a checkpoint of the 7B takes a quarter of an hour at that

# A parameter is kept as float32, with two float32 moments; as bfloat16 besides where it trains so.
_BYTES = {"float32": 12, "bfloat16": 14, "float16": 14}


def check(config: RunConfig) -> Iterator[Finding]:
    """Yields whether the folder can be written to, its free space and its speed."""
    folder = existing_parent(config.checkpoint_dir)
    try:
        speed = write_speed(folder)
    except OSError as error:
        yield problem(
            f"{folder} cannot be written to: {error.strerror}",
            "choose another run.dir, or free space and mend the permissions",
        )
        return
    one = checkpoint_bytes(config)
    text = f"{folder} takes {speed / 1e6:,.0f} MB/s, a checkpoint about {_time(one / speed)}"
    if speed < _SLOW and one > 2**30:
        yield warning(text, "put checkpoint.dir on a faster disk, or add checkpoint.asynchronous")
    else:
        yield ok(text)
    yield _space(config, folder, one)


def checkpoint_bytes(config: RunConfig) -> int:
    """Returns about how many bytes one checkpoint of a run takes."""
    model = ModelConfig.load(config.model.config)
    return model.num_parameters * _BYTES[config.precision]


def kept_checkpoints(config: RunConfig) -> int:
    """Returns how many checkpoints a run has at once, the one that is being written included."""
    settings, iterations = config.checkpoint, config.train.iterations
    made = -(-iterations // settings.interval) if settings.interval else 1
    if not settings.keep:
        return made
    forever = iterations // settings.keep_every if settings.keep_every else 0
    return min(made, settings.keep + 1 + forever)


def write_speed(folder: Path) -> float:
    """Returns the bytes a second that reach the disk of a folder, measured with 64 MiB.

    Raises:
        OSError: Nothing can be written there.
    """
    path = folder / f".bc2-doctor-{os.getpid()}"
    block = os.urandom(2**20)  # what compresses well would be written faster than weights
    try:
        started = time.perf_counter()
        with open(path, "wb") as file:
            for _ in range(_SAMPLE // len(block)):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        return _SAMPLE / (time.perf_counter() - started)
    finally:
        path.unlink(missing_ok=True)


def _space(config: RunConfig, folder: Path, one: int) -> Finding:
    free, count = shutil.disk_usage(folder).free, kept_checkpoints(config)
    text = (
        f"{folder} has {_gib(free)} free; {count} checkpoints of about {_gib(one)} are kept at once"
    )
    if free < one:
        return problem(f"{text}: not even one fits", "set checkpoint.dir to a larger disk")
    if free < count * one:
        return warning(text, "set checkpoint.keep lower, or checkpoint.dir to a larger disk")
    return ok(text)


def _gib(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
