"""Index files of megatron-core's datasets: on shared disks, on disks of each node, after a kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import data_jobs
from bc2_train.data.pretrain import MegatronData
from runs import write_dataset
from workers import WorkerGroup

Workers = Callable[[int], WorkerGroup]


def write(prefix: Path, first: int) -> None:
    write_dataset(prefix, [np.arange(first, first + 50, dtype=np.int32) for _ in range(20)])


@pytest.fixture
def data(tmp_path: Path) -> MegatronData:
    """A blend, which megatron-core keeps index files of besides those of its parts."""
    write(tmp_path / "one", 0)
    write(tmp_path / "other", 100)
    return MegatronData(
        weights={str(tmp_path / "one"): 3.0, str(tmp_path / "other"): 1.0},
        split=(1.0, 0.0, 0.0),
        seq_length=16,
        samples=80,
        validation_samples=None,
        seed=1,
    )


def files(cache: Path) -> dict[str, int]:
    """Returns when each file was written."""
    return {
        str(path.relative_to(cache)): path.stat().st_mtime_ns
        for path in cache.rglob("*")
        if path.is_file()
    }


def test_ranks_with_disks_of_their_own_see_the_same_samples(
    workers: Workers, tmp_path: Path, data: MegatronData
) -> None:
    together, apart = [str(tmp_path / "shared")] * 2, [str(tmp_path / name) for name in "ab"]
    expected, other = workers(2).run(data_jobs.samples, data, together)
    assert expected == other
    assert workers(2).run(data_jobs.samples, data, apart) == [expected] * 2
    made = [files(Path(cache)) for cache in (*apart, together[0])]
    assert made[0].keys() == made[1].keys() == made[2].keys()
    assert len(made[0]) == 11, "4 files of each dataset and 3 of the blend; no mark is left"

    assert workers(2).run(data_jobs.samples, data, apart) == [expected] * 2
    assert [files(Path(cache)) for cache in apart] == made[:2], "something was built again"


def test_what_a_killed_run_left_is_not_taken_for_whole(
    workers: Workers, tmp_path: Path, data: MegatronData
) -> None:
    caches = [str(tmp_path / "cache")] * 2
    expected = workers(2).run(data_jobs.samples, data, caches)
    (folder,) = (path for path in Path(caches[0]).iterdir())
    partial = folder.rename(folder.with_name(f".{folder.name}.partial"))
    for path in partial.glob("*.npy"):
        path.write_bytes(path.read_bytes()[:100])
    assert workers(2).run(data_jobs.samples, data, caches) == expected
    assert folder.is_dir()
    assert not partial.exists()


def test_data_made_anew_under_its_old_name_gets_a_new_index(
    workers: Workers, tmp_path: Path, data: MegatronData
) -> None:
    caches = [str(tmp_path / "cache")] * 2
    workers(2).run(data_jobs.samples, data, caches)
    write_dataset(tmp_path / "one", [np.full(17, 7, dtype=np.int32)] * 30)
    for rank in workers(2).run(data_jobs.samples, data, caches):
        from_one = [tokens for tokens in rank if tokens[0] < 100]
        assert from_one == [[7] * 16] * 60
