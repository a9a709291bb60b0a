"""Reads recipes, with the user's overrides, and writes configurations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from bc2_data.errors import nearest
from bc2_train import schema
from bc2_train.config.groups import Run
from bc2_train.config.run import RunConfig
from bc2_train.errors import TrainError


def recipe_names() -> list[str]:
    """Returns the names of the recipes that ship with the package."""
    folder = resources.files("bc2_train") / "recipes"
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load(recipe: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads a recipe and the user's overrides.

    Args:
        recipe: The name of a shipped recipe, or the path of a YAML file.
        overrides: ``KEY=VALUE`` each; the value is read as YAML.

    Raises:
        TrainError: There is no such recipe, or a key or value is wrong.
    """
    import yaml

    if recipe in recipe_names():
        text = (resources.files("bc2_train") / "recipes" / f"{recipe}.yaml").read_text("utf-8")
    elif Path(recipe).is_file():
        text = Path(recipe).read_text("utf-8")
    else:
        raise TrainError(
            f"no recipe {recipe!r}: neither a shipped name nor a YAML file",
            nearest(recipe, recipe_names()),
        )
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TrainError(f"{recipe} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise TrainError(f"{recipe} holds no keys")
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise TrainError(f"--set {override} has no value", "write --set KEY=VALUE")
        _assign(values, key, yaml.safe_load(value))
    return schema.build(RunConfig, values)


def one_step(config: RunConfig) -> RunConfig:
    """Returns the configuration of a dry run: one step and one save in a folder of its own."""
    return replace(
        config,
        train=replace(config.train, iterations=1),
        checkpoint=replace(config.checkpoint, dir=None),
        run=Run(dir=str(config.run_dir / "dry-run")),
    )


def save(config: RunConfig, path: Path) -> None:
    """Writes the resolved configuration, which `load` reads back, as YAML."""
    import yaml

    from bc2_data.atomic import write_text

    write_text(path, yaml.safe_dump(schema.dump(config), sort_keys=False))


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    for group in groups:
        values = values.setdefault(group, {})
        if not isinstance(values, dict):
            raise TrainError(f"unknown key {key!r}: {group} is a value, not a group of keys")
    values[last] = value
