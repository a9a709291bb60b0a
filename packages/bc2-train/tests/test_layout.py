"""Which layouts fit a model and a number of processes."""

from __future__ import annotations

import pytest

from bc2_ckpt.config import PRESETS
from bc2_train import config as configuration
from bc2_train import layout
from bc2_train.errors import TrainError


def check(world_size: int, *overrides: str) -> layout.Layout:
    config = configuration.load("tiny-13b", ("data.prefix=p", "run.dir=r", *overrides))
    return layout.check(config, PRESETS["tiny-13b"], world_size)


def test_what_is_left_is_data_parallel() -> None:
    result = check(8, "parallel.tensor=2", "parallel.pipeline=2", "batch.micro=2")
    assert result == layout.Layout(world_size=8, data_parallel=2, microbatches=2)


@pytest.mark.parametrize(
    ("world_size", "overrides", "message"),
    [
        (4, ["parallel.tensor=4"], "num_attention_heads is 10"),
        (3, ["parallel.pipeline=3"], "num_hidden_layers is 4"),
        (3, ["parallel.tensor=2"], "the number of processes is 3"),
        (3, [], "batch.global is 8, no multiple of batch.micro 4 x 3"),
        (2, ["parallel.tensor=2", "parallel.sequence=true", "data.seq_length=63"], "is 63"),
    ],
)
def test_what_does_not_divide_is_named(world_size: int, overrides: list[str], message: str) -> None:
    with pytest.raises(TrainError, match=message):
        check(world_size, *overrides)
