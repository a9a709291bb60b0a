"""A real Ray on this machine: the same bytes, errors that arrive, nothing left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bc2_data.errors import DataError
from bc2_data.launchers import make_launcher

ray: Any = pytest.importorskip(
    "ray", reason="Ray is not installed (pip install 'bc2-data[ray]')", exc_type=ImportError
)

TITLE = b"ray::_carry_out"
"""What Ray calls a worker process that is at one of our tasks."""

COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # deaf in a shell's background
from bc2_data.cli import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Dies:
    """Kills the worker that carries it out, until a file is there."""

    survivor: Path

    def __iter__(self) -> Iterator[int]:
        if not self.survivor.exists():
            self.survivor.parent.joinpath(f"died-{os.getpid()}").touch()
            if len(list(self.survivor.parent.glob("died-*"))) == 2:
                self.survivor.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield 1


@dataclass(frozen=True)
class AlwaysDies:
    def __iter__(self) -> Iterator[int]:
        yield 1
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module", autouse=True)
def address() -> Iterator[str]:
    """The address of a cluster of this machine, which this process uses too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        # The tasks of this file travel whole: a test module cannot be imported by name.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        try:
            yield ray.get_runtime_context().gcs_address
        finally:
            ray.shutdown()


def at_work() -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cmdline").read_bytes().startswith(TITLE):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_for(condition: Callable[[], Any]) -> Any:
    for _ in range(3000):
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError("it never came to that")


def contents(prefix: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(prefix.parent.iterdir())}


def test_the_same_bytes_and_progress(
    cli: Any, corpus_folder: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    for name, options in (("here", ()), ("ray", ("--launcher", "ray", "--workers", 3))):
        outcome = cli(
            *("tokenize", "--input", corpus_folder, "--tokenizer", tokenizer_dir),
            *("--output-prefix", tmp_path / name / "data", "--log-interval", 40, *options),
        )
        assert outcome.status == 0, outcome.err
    assert contents(tmp_path / "ray" / "data") == contents(tmp_path / "here" / "data")
    assert outcome.err.count("tokens/s") == 6  # the last run's: a line for each file of 40


def test_a_row_that_stops_the_run_is_named(
    cli: Any, corpus_folder: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    outcome = cli(
        *("tokenize", "--input", corpus_folder, "--tokenizer", tokenizer_dir),
        *("--output-prefix", tmp_path / "out" / "data", "--special-tokens", "error"),
        *("--launcher", "ray", "--workers", 2),
    )
    assert outcome.status == 2
    assert ".jsonl:1: the special token <reserved_106> stands literally" in outcome.err
    wait_for(lambda: not at_work())


def test_ray_tries_again_when_a_worker_dies(tmp_path: Path) -> None:
    survivor = tmp_path / "survivor"
    assert list(make_launcher("ray", 2).run([Dies(survivor)])) == [1]
    assert len(list(tmp_path.glob("died-*"))) == 2


def test_a_task_that_kills_every_worker_is_named() -> None:
    with pytest.raises(DataError, match=r"Ray could not carry out AlwaysDies\(\)") as caught:
        list(make_launcher("ray", 2).run([AlwaysDies()]))
    assert caught.value.hint == "look at the cluster with `ray status`"


def test_an_interrupted_run_at_a_cluster_goes_on(
    cli: Any, address: str, large_folder: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    job = ["tokenize", "--input", *[large_folder] * 10, "--tokenizer", tokenizer_dir]
    assert cli(*job, "--output-prefix", tmp_path / "here" / "data").status == 0

    at_ray = [*job, "--output-prefix", tmp_path / "ray" / "data", "--launcher", "ray"]
    run = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, at_ray), "--workers", "2"],
        env={**os.environ, "RAY_ADDRESS": address},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: any((tmp_path / "ray" / ".data.unfinished").glob("shard-*.json")))
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert "error: interrupted\nnote: kept " in err
    wait_for(lambda: not at_work())

    outcome = cli(*at_ray, "--workers", 2, "--resume")
    assert outcome.status == 0, outcome.err
    assert contents(tmp_path / "ray" / "data") == contents(tmp_path / "here" / "data")
