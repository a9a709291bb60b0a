"""The two sizes as AscendSpeed's scripts name them, beside what config.json says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ascendspeed.arguments import DropInError
from bc2_ckpt.config import PRESETS, ModelConfig
from bc2_data.errors import nearest

FAMILIES = {"7B": PRESETS["baichuan2-7b"], "13B": PRESETS["baichuan2-13b"]}


def family(name: str) -> ModelConfig:
    """Returns the dimensions that AscendSpeed had for a name.

    Raises:
        DropInError: It is neither size of Baichuan2.
    """
    if name not in FAMILIES:
        raise DropInError(f"{name} is no size of Baichuan2", nearest(name, FAMILIES))
    return FAMILIES[name]


def dimensions(config: ModelConfig) -> dict[str, Any]:
    """Returns what ``--type`` stands for."""
    return {
        "num_layers": config.num_layers,
        "hidden_size": config.hidden_size,
        "num_heads": config.num_heads,
        "position_embedding": config.position_embedding,
    }


def disagreement(said: Mapping[str, Any], config: ModelConfig, where: str) -> list[str]:
    """Returns a warning where the command line names other dimensions than the config.

    Args:
        said: Fields of the config as the command line has them.
        config: The config.
        where: Its name.
    """
    differing = {name: value for name, value in said.items() if getattr(config, name) != value}
    if not differing:
        return []
    ours = ", ".join(f"{name} {value}" for name, value in differing.items())
    theirs = ", ".join(f"{getattr(config, name)}" for name in differing)
    return [f"the command line stands for {ours}, but {where} says {theirs}: {where} is followed"]
