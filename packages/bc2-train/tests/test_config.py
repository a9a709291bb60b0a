"""Recipes, overrides and what is said of wrong keys and values."""

from __future__ import annotations

from pathlib import Path

import pytest

from bc2_train import config as configuration
from bc2_train.errors import TrainError

NEEDED = ("data.prefix=data/p", "run.dir=runs/r")


@pytest.mark.parametrize("recipe", configuration.recipe_names())
def test_every_shipped_recipe_loads(recipe: str) -> None:
    config = configuration.load(recipe, NEEDED)
    assert config.run_dir == Path("runs/r")
    assert config.checkpoint_dir == Path("runs/r/checkpoints")


@pytest.mark.parametrize("recipe", ["tiny-7b", "tiny-13b"])
def test_tiny_recipes_are_plain(recipe: str) -> None:
    parallel = configuration.load(recipe, NEEDED).parallel
    assert parallel == configuration.Parallel()


def test_overrides_have_the_last_word() -> None:
    config = configuration.load(
        "tiny-7b",
        (*NEEDED, "optimizer.lr=1e-6", "optimizer.betas=[0.9, 0.98]", "batch.global=16"),
    )
    assert config.optimizer.lr == 1e-6
    assert config.optimizer.betas == (0.9, 0.98)
    assert config.batch.global_ == 16


def test_a_saved_configuration_reads_back_equal(tmp_path: Path) -> None:
    config = configuration.load("tiny-13b", (*NEEDED, "optimizer.lr=3e-05"))
    configuration.save(config, tmp_path / "config.yaml")
    assert configuration.load(str(tmp_path / "config.yaml")) == config


@pytest.mark.parametrize(
    ("override", "message", "hint"),
    [
        ("optimizer.learning=1", "unknown key 'optimizer.learning'", "optimizer."),
        ("optimiser.lr=1", "unknown key 'optimiser'", "'optimizer'"),
        ("data.kind=pretraining", "data.kind is 'pretraining'", "'pretrain'"),
        ("train.iterations=many", "train.iterations is 'many', not a whole number", ""),
        ("train.iterations=true", "train.iterations is True, not a whole number", ""),
        ("train.iterations=0", "train.iterations is 0, which must be at least 1", ""),
        ("optimizer.lr=fast", "optimizer.lr is 'fast', not a number", ""),
        ("optimizer.betas=[0.9]", "not a list of 2 numbers", ""),
        ("data.shuffle=1", "data.shuffle is 1, not true or false", ""),
        ("parallel=2", "parallel is 2, not a group of keys", ""),
        ("data.prefix.name=x", "data.prefix", ""),
        ("parallel.sequence=true", "tensor-parallel group of one", "parallel.tensor"),
        ("iterations", "--set iterations has no value", "KEY=VALUE"),
    ],
)
def test_wrong_overrides(override: str, message: str, hint: str) -> None:
    with pytest.raises(TrainError) as error:
        configuration.load("tiny-7b", (*NEEDED, override))
    assert message in error.value.message
    assert hint in error.value.hint


def test_a_missing_key_is_named() -> None:
    with pytest.raises(TrainError, match=r"the key data\.prefix is missing"):
        configuration.load("tiny-7b", ["run.dir=x"])


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(TrainError) as error:
        configuration.load("tiny-13", NEEDED)
    assert "'tiny-13b'" in error.value.hint


def test_a_recipe_that_is_no_yaml(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("model: [")
    with pytest.raises(TrainError, match="not YAML"):
        configuration.load(str(path), NEEDED)
