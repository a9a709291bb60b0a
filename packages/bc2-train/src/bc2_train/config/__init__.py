"""The configuration of a training run: its keys, their defaults, and where they come from.

A run is described by a recipe, a YAML file that ships with the package or belongs to the user, over
which ``--set KEY=VALUE`` has the last word.
"""

from bc2_train.config.files import load, one_step, recipe_names, save
from bc2_train.config.groups import (
    Batch,
    Checkpoint,
    Data,
    DeepSpeed,
    Evaluation,
    Launch,
    Lora,
    Metrics,
    Model,
    Optimizer,
    Parallel,
    Run,
    Train,
)
from bc2_train.config.run import RunConfig

__all__ = [
    "Batch",
    "Checkpoint",
    "Data",
    "DeepSpeed",
    "Evaluation",
    "Launch",
    "Lora",
    "Metrics",
    "Model",
    "Optimizer",
    "Parallel",
    "Run",
    "RunConfig",
    "Train",
    "load",
    "one_step",
    "recipe_names",
    "save",
]
