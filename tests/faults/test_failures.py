"""What ends a run from outside: each says what happened and costs no earlier checkpoint."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from runs import children, finished_losses, make_inputs, run_command, wait_until, write_dataset


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_ends_the_run(inputs: Path, tmp_path: Path, rank: int) -> None:
    run_dir = tmp_path / "run"
    options = ("train.iterations=100000", "checkpoint.interval=5")
    process = subprocess.Popen(
        run_command(inputs, run_dir, *options), stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: (run_dir / "checkpoints" / "iter_0000005").is_dir())
    os.kill(children(process)[rank], signal.SIGKILL)
    started = time.monotonic()
    _, message = process.communicate(timeout=60)
    assert time.monotonic() - started < 60
    assert process.returncode == 1
    assert f"error: rank {rank} on " in message
    assert "ended with SIGKILL" in message
    assert (run_dir / "checkpoints" / "iter_0000005").is_dir()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize(
    ("engine", "free"),
    [
        (["engine=megatron"], "0"),
        # It names the write that failed, and a shard that does not fit leaves the rest free.
        (["engine=deepspeed", "parallel.tensor=1"], "[01]"),
    ],
    ids=["megatron", "deepspeed"],
)
def test_a_full_disk_during_a_save(
    inputs: Path, tmp_path: Path, small_disk: Path, engine: list[str], free: str
) -> None:
    run_dir = tmp_path / "run"
    options = ("train.iterations=1000", "checkpoint.interval=2", f"checkpoint.dir={small_disk}")
    result = subprocess.run(
        run_command(inputs, run_dir, *options, *engine),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert result.returncode != 0
    assert result.stderr.count("error: ") == 1
    said = rf"error: saving to {re.escape(str(small_disk))} failed, where {free} MB are free: "
    assert re.search(said, result.stderr)
    assert len(finished_losses(run_dir)) < 1000
    # What was whole before is whole still, and nothing half-written bears a checkpoint's name.
    for checkpoint in small_disk.glob("iter_*"):
        assert (checkpoint / "checksums.json").is_file()


def test_data_of_another_vocabulary(inputs: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "text", [np.arange(100, 700, dtype=np.int32)])
    result = subprocess.run(
        run_command(inputs, tmp_path / "run", f"data.prefix={tmp_path / 'text'}"),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.count("error: ") == 1
    assert "but the vocabulary ends at 250" in result.stderr
